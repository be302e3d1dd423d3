//! The forms of names (apimachinery pkg/util/validation).

/// What a text may look like.
pub(super) struct Form {
    /// Whether a text has the form.
    pub(super) holds: fn(&str) -> bool,
    /// What is wanted, in words that follow "is not" and "use".
    pub(super) wanted: &'static str,
}

/// A label of DNS (RFC 1123).
pub(super) const LABEL: Form = Form {
    holds: is_label,
    wanted: "a DNS label: up to 63 of a-z, 0-9 and -, the first and the last no -",
};

/// A subdomain of DNS (RFC 1123).
pub(super) const SUBDOMAIN: Form = Form {
    holds: is_subdomain,
    wanted: "a DNS name: up to 253 of a-z, 0-9, - and ., each part starting and ending with a \
             letter or digit",
};

/// A host name of two labels or more; it may end with a dot.
pub(super) const HOST: Form = Form {
    holds: is_host,
    wanted: "a full DNS name such as web.example.com: labels of up to 63 of a-z, 0-9 and -",
};

/// What labels, annotations, classes and application protocols are called by.
pub(super) const QUALIFIED: Form = Form {
    holds: is_qualified,
    wanted: "a qualified name such as name or example.com/name: up to 63 of A-Z, a-z, 0-9, -, _ \
             and ., the first and the last a letter or digit",
};

/// The value of a label.
pub(super) const LABEL_VALUE: Form = Form {
    holds: is_label_value,
    wanted: "the value of a label: up to 63 of A-Z, a-z, 0-9, -, _ and ., the first and the last \
             a letter or digit",
};

/// The name of a port (RFC 6335 section 5.1).
pub(super) const PORT_NAME: Form = Form {
    holds: is_port_name,
    wanted: "the name of a port: up to 15 of a-z, 0-9 and -, a letter among them, no two - in a \
             row and none at an end",
};

/// Longest label, and longest name of a qualified name, in bytes.
const MAX_LABEL: usize = 63;
/// Longest subdomain, in bytes.
const MAX_SUBDOMAIN: usize = 253;
/// Longest name of a port, in bytes.
const MAX_PORT_NAME: usize = 15;

fn is_label(text: &str) -> bool {
    text.len() <= MAX_LABEL && is_part(text)
}

/// Unlike RFC 1123, the API server puts no bound on a single part.
fn is_subdomain(text: &str) -> bool {
    text.len() <= MAX_SUBDOMAIN && text.split('.').all(is_part)
}

fn is_part(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty() && text.bytes().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_host(text: &str) -> bool {
    let name = text.strip_suffix('.').unwrap_or(text);
    is_subdomain(name) && name.contains('.') && name.split('.').all(is_label)
}

fn is_qualified(text: &str) -> bool {
    let name = match text.split_once('/') {
        Some((prefix, _)) if !is_subdomain(prefix) => return false,
        Some((_, name)) => name,
        None => text,
    };
    !name.is_empty() && is_label_value(name)
}

fn is_label_value(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    let edge = |byte: Option<&u8>| byte.is_none_or(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    bytes.len() <= MAX_LABEL && text.bytes().all(inner) && edge(bytes.first()) && edge(bytes.last())
}

fn is_port_name(text: &str) -> bool {
    text.len() <= MAX_PORT_NAME
        && is_part(text)
        && !text.contains("--")
        && text.bytes().any(|byte| byte.is_ascii_lowercase())
}

/// Whether names can be made by adding characters to `prefix`, so that a dash may be its last.
pub(super) fn can_start(prefix: &str, form: &Form) -> bool {
    match prefix.strip_suffix('-') {
        Some(start) => (form.holds)(&format!("{start}a")),
        None => (form.holds)(prefix),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judge(form: &Form, good: &[&str], bad: &[&str]) {
        for text in good {
            assert!((form.holds)(text), "{text:?} is {}", form.wanted);
        }
        for text in bad {
            assert!(!(form.holds)(text), "{text:?} is not {}", form.wanted);
        }
    }

    #[test]
    fn each_form_has_its_characters_and_its_length() {
        let (label, longer) = ("a".repeat(63), "a".repeat(64));
        let (name, too_long) = ([label.as_str(); 3].join("."), ["a"; 128].join("."));
        judge(
            &LABEL,
            &["a", "0", "a-b", &label],
            &["", "-", "a-", "A", "a.b", "ä", &longer],
        );
        judge(
            &SUBDOMAIN,
            &["a", "a.b-c", &name, &longer],
            &["", ".", "a.", "a..b", "a_b", &too_long],
        );
        judge(
            &HOST,
            &["a.b", "a.b.", &name],
            &["", "a", "a.", "*.a.b", "a..", "A.b", &format!("{longer}.b")],
        );
        judge(
            &QUALIFIED,
            &[
                "a",
                "A_b.C-d",
                "example.com/a",
                &label,
                &format!("example.com/{label}"),
            ],
            &[
                "",
                "/",
                "a/",
                "/a",
                "a/b/c",
                "Example.com/a",
                "a=b",
                "-a",
                "a.",
                &longer,
                "a b",
            ],
        );
        judge(
            &LABEL_VALUE,
            &["", "a", "A_b.C-d", &label],
            &["a/b", "-a", "a-", " ", &longer],
        );
        judge(
            &PORT_NAME,
            &["a", "80a", "http-alt", "abcdefghijklmno"],
            &[
                "",
                "80",
                "a--b",
                "-a",
                "a-",
                "Http",
                "a_b",
                "abcdefghijklmnop",
            ],
        );
    }

    #[test]
    fn a_prefix_may_end_with_a_dash() {
        for prefix in ["web-", "web", "w"] {
            assert!(can_start(prefix, &LABEL), "{prefix}");
        }
        for prefix in ["-123", "web.", "--", ""] {
            assert!(!can_start(prefix, &LABEL), "{prefix}");
        }
    }
}
