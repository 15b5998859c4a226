//! Filters back to text, so that what is read from it is the same filter.

use std::fmt::{Display, Formatter, Result, Write};
use std::ops::Bound;

use super::parse::is_word;
use super::{Field, Filter, Scalar, Test};

impl Display for Filter {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::Or(parts) => joined(f, parts, " or ", |part| matches!(part, Self::Or(_))),
            Self::And(parts) => {
                joined(f, parts, " and ", |part| matches!(part, Self::Or(_) | Self::And(_)))
            }
            Self::Not(part) => {
                f.write_str("not ")?;
                let many = matches!(part.as_ref(), Self::Or(_) | Self::And(_));
                in_parentheses(f, part, many)
            }
            Self::Term(field, test) => term(f, field, test),
        }
    }
}

fn joined(
    f: &mut Formatter<'_>,
    parts: &[Filter],
    between: &str,
    loose: impl Fn(&Filter) -> bool,
) -> Result {
    for (i, part) in parts.iter().enumerate() {
        if i > 0 {
            f.write_str(between)?;
        }
        in_parentheses(f, part, loose(part))?;
    }
    Ok(())
}

fn in_parentheses(f: &mut Formatter<'_>, filter: &Filter, needed: bool) -> Result {
    if needed { write!(f, "({filter})") } else { write!(f, "{filter}") }
}

fn term(f: &mut Formatter<'_>, field: &Field, test: &Test) -> Result {
    let field = name(&field.name());
    match test {
        Test::Eq(value) => write!(f, "{field} = {}", Written(value)),
        Test::Ne(value) => write!(f, "{field} != {}", Written(value)),
        Test::In(values) => {
            write!(f, "{field} in (")?;
            for (i, value) in values.iter().enumerate() {
                write!(f, "{}{}", if i > 0 { ", " } else { "" }, Written(value))?;
            }
            f.write_char(')')
        }
        Test::Range(low, high) => range(f, &field, low, high),
        Test::Prefix(text) => write!(f, "{field} prefix {}", quoted(text, '"')),
        Test::Exists => write!(f, "exists {field}"),
    }
}

fn range(f: &mut Formatter<'_>, field: &str, low: &Bound<Scalar>, high: &Bound<Scalar>) -> Result {
    let sign = |bound: &Bound<Scalar>| if matches!(bound, Bound::Included(_)) { "=" } else { "" };
    match (low, high) {
        (Bound::Included(low), Bound::Included(high)) => {
            write!(f, "{field} between {} and {}", Written(low), Written(high))
        }
        (Bound::Included(a) | Bound::Excluded(a), Bound::Included(b) | Bound::Excluded(b)) => {
            let (first, second) = (sign(low), sign(high));
            write!(f, "{} <{first} {field} <{second} {}", Written(a), Written(b))
        }
        (Bound::Included(value) | Bound::Excluded(value), Bound::Unbounded) => {
            write!(f, "{field} >{} {}", sign(low), Written(value))
        }
        (Bound::Unbounded, Bound::Included(value) | Bound::Excluded(value)) => {
            write!(f, "{field} <{} {}", sign(high), Written(value))
        }
        // No such range passes `Filter::check`.
        (Bound::Unbounded, Bound::Unbounded) => write!(f, "exists {field}"),
    }
}

fn name(name: &str) -> String {
    if is_word(name) { name.to_owned() } else { quoted(name, '`') }
}

struct Written<'a>(&'a Scalar);

impl Display for Written<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self.0 {
            Scalar::Bool(value) => write!(f, "{value}"),
            // Whole numbers without a point, others with as many digits as tell them apart.
            Scalar::Number(number) if number.trunc() == *number && number.abs() < 1e15 => {
                write!(f, "{number}")
            }
            Scalar::Number(number) => write!(f, "{number:?}"),
            Scalar::Text(text) => f.write_str(&quoted(text, '"')),
        }
    }
}

fn quoted(text: &str, quote: char) -> String {
    let mut written = String::from(quote);
    for character in text.chars() {
        match character {
            '\\' => written.push_str("\\\\"),
            '\n' => written.push_str("\\n"),
            '\r' => written.push_str("\\r"),
            '\t' => written.push_str("\\t"),
            _ if character == quote => {
                written.push('\\');
                written.push(quote);
            }
            _ if character.is_control() => {
                written.push_str(&format!("\\u{{{:x}}}", u32::from(character)));
            }
            _ => written.push(character),
        }
    }
    written.push(quote);
    written
}
