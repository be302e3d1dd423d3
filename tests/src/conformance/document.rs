//! A file of cases: sections with a list of cases each.

use std::path::Path;

use anyhow::{Context, bail};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::Report;

/// Longest file, in bytes; the YAML reader has bounds of its own beside it.
const MAX_LEN: u64 = 64 << 20;

/// Keys of any case that tell the reader something and decide nothing.
const DESCRIPTIVE: [&str; 5] = ["id", "title", "origin", "note", "derived"];

/// A whole file.
#[derive(Debug)]
pub struct Document(Map<String, Value>);

/// One case.
#[derive(Debug)]
pub struct Case<'a> {
    /// Its id, or its place in the file.
    pub id: String,
    value: &'a Value,
}

impl Document {
    /// Reads `DIR/SUITE.yaml`.
    pub fn read(suite: &str, dir: &Path) -> anyhow::Result<Self> {
        let path = dir.join(suite).with_extension("yaml");
        let shown = path.display();
        let length = path.metadata().with_context(|| format!("{shown}"))?.len();
        if length > MAX_LEN {
            bail!("{shown}: {length} bytes; at most {MAX_LEN} are read");
        }
        let text = std::fs::read_to_string(&path).with_context(|| format!("{shown}"))?;
        Self::parse(suite, &text).with_context(|| format!("{shown}"))
    }

    fn parse(suite: &str, text: &str) -> anyhow::Result<Self> {
        let nodes = 4_000_000;
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! { max_nodes: nodes, max_events: 2 * nodes },
            with_snippet: false,
        };
        let value: Value = serde_saphyr::from_str_with_options(text, options)?;
        let Value::Object(sections) = value else {
            bail!("is not a map of sections");
        };
        let wanted = format!("conformance/{suite}/v1");
        match sections.get("format") {
            Some(Value::String(format)) if *format == wanted => Ok(Self(sections)),
            Some(other) => bail!("format is {other}; this runner reads {wanted:?}"),
            None => bail!("format is missing; this runner reads {wanted:?}"),
        }
    }

    /// Names of the sections.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.0
            .keys()
            .map(String::as_str)
            .filter(|key| *key != "format")
    }

    /// An entry of a section that is a map.
    pub fn entry(&self, section: &str, key: &str) -> Option<&Value> {
        self.0.get(section)?.get(key)
    }

    /// Cases of a section; none when it is missing or empty.
    pub fn cases(&self, section: &str) -> anyhow::Result<Vec<Case<'_>>> {
        let cases = match self.0.get(section) {
            None | Some(Value::Null) => return Ok(Vec::new()),
            Some(Value::Array(cases)) => cases.iter().enumerate(),
            Some(_) => bail!("section {section} is not a list of cases"),
        };
        let named = cases.map(|(index, value)| Case::new(value, &format!("{section}[{index}]")));
        Ok(named.collect())
    }
}

impl<'a> Case<'a> {
    /// A case that is called `otherwise` if it has no id.
    pub fn new(value: &'a Value, otherwise: &str) -> Self {
        let id = match value.get("id") {
            Some(Value::String(id)) => id.clone(),
            Some(Value::Number(id)) => id.to_string(),
            _ => otherwise.to_owned(),
        };
        Self { id, value }
    }

    /// As it stands in the file.
    pub fn value(&self) -> &'a Value {
        self.value
    }

    /// Reads it. Keys that nobody knows are noted.
    ///
    /// # Errors
    /// The first mistake, with its path; a key below `expect` that nobody knows.
    pub fn parse<T: DeserializeOwned>(&self, report: &mut Report) -> Result<T, String> {
        let (case, unknown) = parse(self.value)?;
        let (expected, other): (Vec<_>, Vec<_>) = unknown
            .into_iter()
            .filter(|path| !DESCRIPTIVE.contains(&path.as_str()))
            .partition(|path| path.split('.').any(|key| key == "expect"));
        for path in other {
            report.note(format!("{}: unknown key {path} is not read", self.id));
        }
        match expected.is_empty() {
            true => Ok(case),
            false => Err(format!("unknown expectation {}", expected.join(", "))),
        }
    }
}

/// Reads a value; with it the paths of keys that nobody knows.
pub fn parse<T: DeserializeOwned>(value: &Value) -> Result<(T, Vec<String>), String> {
    let mut unknown = Vec::new();
    let mut track = serde_path_to_error::Track::new();
    let reader = serde_path_to_error::Deserializer::new(value, &mut track);
    let mut note = |path: serde_ignored::Path<'_>| unknown.push(path.to_string());
    match serde_ignored::deserialize(reader, &mut note) {
        Ok(case) => Ok((case, unknown)),
        Err(error) => Err(format!("cannot be read: {}: {error}", track.path())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_another_format_is_refused_by_name() {
        for (text, message) in [
            (
                "format: conformance/maglev/v2\n",
                "format is \"conformance/maglev/v2\"; this runner reads \"conformance/maglev/v1\"",
            ),
            (
                "cases: []\n",
                "format is missing; this runner reads \"conformance/maglev/v1\"",
            ),
            ("- 1\n", "is not a map of sections"),
        ] {
            let error = Document::parse("maglev", text).unwrap_err();
            assert_eq!(error.to_string(), message);
        }
        for broken in ["", "a: [", "a: &a [*a]\n", "\u{0}", "format: {"] {
            assert!(Document::parse("maglev", broken).is_err(), "{broken:?}");
        }
    }

    #[test]
    fn sections_may_be_empty_or_missing_but_nothing_else() {
        let text =
            "format: conformance/maglev/v1\nempty:\nlist: [{id: a}, {id: 7}, {}, 3]\nword: x\n";
        let document = Document::parse("maglev", text).unwrap();
        assert!(document.cases("empty").unwrap().is_empty());
        assert!(document.cases("missing").unwrap().is_empty());
        let ids: Vec<String> = document
            .cases("list")
            .unwrap()
            .into_iter()
            .map(|c| c.id)
            .collect();
        assert_eq!(ids, ["a", "7", "list[2]", "list[3]"]);
        assert!(document.cases("word").is_err());
        assert_eq!(
            document.sections().collect::<Vec<_>>(),
            ["empty", "list", "word"]
        );
    }

    #[test]
    fn unknown_keys_are_noted_and_unknown_expectations_fail() {
        #[derive(Debug, serde::Deserialize)]
        struct Known {
            #[serde(rename = "port")]
            _port: u16,
        }
        #[derive(Debug, serde::Deserialize)]
        struct Whole {
            #[serde(rename = "expect")]
            _expect: Known,
        }
        let mut report = Report::default();
        let value = serde_json::json!({"id": "x", "port": 1, "colour": 2});
        assert!(Case::new(&value, "").parse::<Known>(&mut report).is_ok());
        let lines = report.lines(false);
        assert_eq!(lines[0], "note: x: unknown key colour is not read");
        let value = serde_json::json!({"expect": {"port": 1, "colour": 2}});
        let error = Case::new(&value, "")
            .parse::<Whole>(&mut report)
            .unwrap_err();
        assert_eq!(error, "unknown expectation expect.colour");
        let value = serde_json::json!({"expect": {"port": 65536}});
        let error = Case::new(&value, "")
            .parse::<Whole>(&mut report)
            .unwrap_err();
        assert!(
            error.starts_with("cannot be read: expect.port: "),
            "{error}"
        );
    }
}
