/// The revision that is meant where none is named.
const DEFAULT_REVISION: &str = "main";

/// The hub's own limit for each part of an id.
const MAX_ID_CHARS: usize = 96;

/// `org/name/sub/folder@revision`, taken apart.
///
/// The first two parts are the repository, so that a subfolder can be named only where the organisation is. The revision comes last, since
/// one may have slashes itself (`refs/pr/1`).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct HubId<'a> {
    /// `name` or `org/name`.
    pub name: &'a str,
    /// The folder within the repository, if not its top.
    pub subfolder: Option<&'a str>,
    /// A branch, a tag or a commit.
    pub revision: &'a str,
}

impl<'a> HubId<'a> {
    /// `None` if this is not the spelling of a hub id.
    pub(crate) fn parse(model: &'a str) -> Option<Self> {
        let (path, revision) = model.split_once('@').unwrap_or((model, DEFAULT_REVISION));
        let (name, subfolder) = match path.match_indices('/').nth(1) {
            Some((end, _)) => (&path[..end], Some(&path[end + 1..])),
            None => (path, None),
        };
        let is_id = name.split('/').all(is_part)
            && subfolder.is_none_or(is_below)
            // A branch may have slashes, but must stay within refs/.
            && is_below(revision);
        is_id.then_some(Self { name, subfolder, revision })
    }
}

/// The hub's own rule for each part of an id; it also keeps an id from leaving the cache.
fn is_part(part: &str) -> bool {
    !part.is_empty()
        && part.len() <= MAX_ID_CHARS
        && part.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c))
        && !part.starts_with(['.', '-'])
        && !part.ends_with(['.', '-'])
        && !part.contains("..")
        && !part.contains("--")
}

/// Whether this names something below a folder: in a cache, and in a URL without any escape.
fn is_below(path: &str) -> bool {
    path.chars().all(|c| c.is_ascii_alphanumeric() || "._-+/".contains(c))
        && path.split('/').all(|part| !["", ".", ".."].contains(&part))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_paths() {
        let id = |name, subfolder, revision| Some(HubId { name, subfolder, revision });
        assert_eq!(HubId::parse("bert-base-uncased"), id("bert-base-uncased", None, "main"));
        assert_eq!(HubId::parse("org/name"), id("org/name", None, "main"));
        assert_eq!(HubId::parse("org/name@v1.0"), id("org/name", None, "v1.0"));
        assert_eq!(HubId::parse("org/name@refs/pr/3"), id("org/name", None, "refs/pr/3"));
        assert_eq!(HubId::parse("org/name/sub"), id("org/name", Some("sub"), "main"));
        assert_eq!(
            HubId::parse("org/name/0_Part/x@refs/pr/3"),
            id("org/name", Some("0_Part/x"), "refs/pr/3")
        );
        for path in [
            "",
            "/",
            "./x",
            "../x",
            "a//b",
            "a/b/",
            "a/b//c",
            "a/b/../c",
            "a/b/./c",
            "a/b/c/./d",
            "a/b/c d",
            "org/",
            "/name",
            "a--b",
            "a..b",
            "~/x",
            "C:\\x",
            "a b",
            "org/name@",
            "org/name@../../x",
            "org/name@/etc",
            "org/name@a\\b",
            "org/name@a?b",
            "org/name@a@b",
        ] {
            assert_eq!(HubId::parse(path), None, "{path}");
        }
    }
}
