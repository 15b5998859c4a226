//! Names that nobody can guess.

/// `N` random bytes of the operating system, in hexadecimal.
///
/// # Errors
/// The system gives none.
pub fn hex<const N: usize>() -> Result<String, getrandom::Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}
