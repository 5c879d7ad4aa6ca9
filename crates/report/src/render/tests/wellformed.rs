//! A small, strict reader of XML: enough to see that a document is well-formed.

/// Elements of HTML that have no end.
const VOID: [&str; 3] = ["meta", "wbr", "br"];

/// What is wrong with a document, if anything.
pub fn wellformed(document: &str) -> Result<(), String> {
    let mut open: Vec<String> = Vec::new();
    let mut rest = document;
    while let Some(at) = rest.find('<') {
        characters(&rest[..at])?;
        rest = &rest[at + 1..];
        let (tag, after) = tag(rest)?;
        rest = after;
        if tag.starts_with('?') || tag == "!doctype html" {
            continue;
        }
        if let Some(name) = tag.strip_prefix('/') {
            if open.pop().as_deref() != Some(name) {
                return Err(format!("</{name}> ends nothing"));
            }
            continue;
        }
        let (inner, empty) = tag.strip_suffix('/').map_or((tag, false), |inner| (inner, true));
        let name = attributes(inner)?;
        if name == "style" {
            // Its text is no markup.
            rest = &rest[rest.find("</style>").ok_or("<style> has no end")?..];
        }
        if !empty && !VOID.contains(&name) {
            open.push(name.into());
        }
    }
    characters(rest)?;
    if open.is_empty() { Ok(()) } else { Err(format!("{open:?} have no end")) }
}

/// What a reader sees of a document: its text, and the titles that a pointer shows.
pub fn text(document: &str) -> String {
    let body = document.split("</style>").last().unwrap();
    let mut out = String::new();
    for (number, part) in body.split('<').enumerate() {
        let (tag, text) = if number == 0 { ("", part) } else { part.split_once('>').unwrap() };
        for attribute in ["title=\"", "message=\""] {
            out += tag.split(attribute).nth(1).and_then(|title| title.split('"').next()).unwrap_or_default();
        }
        out += text;
    }
    let entities = [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&amp;", "&")];
    entities.iter().fold(out, |out, (entity, letter)| out.replace(entity, letter))
}

/// A tag without its angles, and what follows; a `>` within quotes does not end it.
fn tag(rest: &str) -> Result<(&str, &str), String> {
    let mut quoted = false;
    for (at, letter) in rest.char_indices() {
        match letter {
            '"' => quoted = !quoted,
            '<' => return Err(format!("a < within a tag: {}", &rest[..at])),
            '>' if !quoted => return Ok((&rest[..at], &rest[at + 1..])),
            _ => {}
        }
    }
    Err("a tag has no end".into())
}

/// Reads ` name="value"` until nothing is left, and gives the name of the element.
fn attributes(tag: &str) -> Result<&str, String> {
    let name = tag.split([' ', '\n']).next().unwrap_or_default();
    if name.is_empty() || !name.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-') {
        return Err(format!("<{tag}> has no name"));
    }
    let mut rest = tag[name.len()..].trim_start();
    let mut seen = Vec::new();
    while !rest.is_empty() {
        let (attribute, value) =
            rest.split_once("=\"").ok_or(format!("<{tag}> has something else than attributes"))?;
        let (value, after) = value.split_once('"').ok_or(format!("<{tag}> has no closing quote"))?;
        let spelled = attribute.chars().all(|letter| letter.is_ascii_alphanumeric() || letter == '-');
        if !spelled || attribute.is_empty() || seen.contains(&attribute) {
            return Err(format!("<{tag}> has an attribute '{attribute}'"));
        }
        characters(value)?;
        seen.push(attribute);
        rest = after.trim_start();
    }
    Ok(name)
}

/// Whether text holds characters that XML allows, and no `&` but in an entity that XML knows.
fn characters(text: &str) -> Result<(), String> {
    let forbidden =
        |letter: char| (letter.is_control() && letter != '\n') || matches!(letter, '\u{fffe}' | '\u{ffff}');
    if let Some(letter) = text.chars().find(|letter| forbidden(*letter)) {
        return Err(format!("{letter:?} in '{text}'"));
    }
    let known =
        |rest: &str| ["lt;", "gt;", "quot;", "#39;", "amp;"].iter().any(|entity| rest.starts_with(entity));
    match text.split('&').skip(1).find(|rest| !known(rest)) {
        Some(rest) => Err(format!("&{rest} is no entity")),
        None => Ok(()),
    }
}

#[test]
fn it_finds_what_is_wrong() {
    let good = "<?xml version=\"1.0\"?>\n<a b=\"c&lt;\" d=\"'>\"><e/>f &amp; g</a>";
    assert_eq!(wellformed(good), Ok(()));
    for bad in [
        "<a>",
        "</a>",
        "<a></b>",
        "<a b=c></a>",
        "<a b=\"1\" b=\"2\"></a>",
        "<a b=\"<\"></a>",
        "<a>&x</a>",
        "<a>\u{1}</a>",
        "<a b></a>",
        "a < b",
    ] {
        assert!(wellformed(bad).is_err(), "{bad}");
    }
}
