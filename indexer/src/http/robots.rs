//! `X-Robots-Tag`, read as img2dataset reads it.

/// What a site says when its pictures are not to be collected.
const REFUSALS: &[&str] = &["noai", "noimageai", "noindex", "noimageindex"];
/// The name that a tag for this program alone starts with.
const TOKEN: &str = "akin";

/// The first directive that refuses us. A tag is a list of directives for all, or, after `NAME:`,
/// for one program.
pub(super) fn refusal<'a>(tags: impl IntoIterator<Item = &'a str>) -> Option<String> {
    tags.into_iter().find_map(|tag| {
        let directives = match tag.split_once(':') {
            Some((token, directives)) if token.trim().eq_ignore_ascii_case(TOKEN) => directives,
            Some(_) => return None,
            None => tag,
        };
        let mut directives = directives.split(',').map(|one| one.trim().to_ascii_lowercase());
        directives.find(|directive| REFUSALS.contains(&directive.as_str()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_for_all_or_for_us() {
        let cases = [
            (&["noai"][..], Some("noai")),
            (&["nofollow, NoImageAI"], Some("noimageai")),
            (&["nofollow", "noindex"], Some("noindex")),
            (&["Akin: noimageindex"], Some("noimageindex")),
            (&["otherbot: noindex, noai"], None),
            (&["all", "nofollow"], None),
            (&["noaim"], None),
            (&[], None),
        ];
        for (tags, expected) in cases {
            assert_eq!(refusal(tags.iter().copied()).as_deref(), expected, "{tags:?}");
        }
    }
}
