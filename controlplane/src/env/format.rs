//! Variables as text that others read.
//!
//! Guarantees: whoever reads the text gets exactly the variables that were written, and nothing of
//! it is run; what a format cannot express is left out and told.

use sluice_conf::settings::controlplane::EnvironmentFormat;

use super::Variable;

/// How variables are written.
pub type Format = EnvironmentFormat;

/// Longest line that `docker run --env-file` reads, in bytes (Go's `bufio.MaxScanTokenSize`, line break
/// included).
const MAX_DOCKER_LINE: usize = 64 << 10;

/// Variables as text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// What the format cannot express.
    pub left_out: Vec<LeftOut>,
}

/// A variable that is not in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Its name.
    pub name: String,
    /// Why.
    pub reason: &'static str,
}

/// Writes variables, each name once, in their order.
pub fn write(format: Format, variables: &[Variable]) -> Text {
    let line = match format {
        Format::Shell => shell,
        Format::Docker => docker,
        Format::Systemd => systemd,
        Format::Json => return json(variables),
    };
    let mut written = Text::default();
    for variable in variables {
        match line(variable) {
            Ok(line) => {
                written.text.push_str(&line);
                written.text.push('\n');
            }
            Err(reason) => written.left_out.push(LeftOut {
                name: variable.name.clone(),
                reason,
            }),
        }
    }
    written
}

/// A command of the POSIX shell: between single quotes everything stands for itself (XCU 2.2.2).
fn shell(variable: &Variable) -> Result<String, &'static str> {
    let Variable { name, value } = variable;
    if !is_identifier(name) {
        return Err(
            "a shell knows only names of letters, digits and _, none of which begins with a digit",
        );
    }
    if value.contains('\0') {
        return Err("a value cannot hold a zero byte");
    }
    Ok(format!("export {name}='{}'", value.replace('\'', r"'\''")))
}

/// A line of an env-file of Docker: everything behind the first `=` is the value.
fn docker(variable: &Variable) -> Result<String, &'static str> {
    let Variable { name, value } = variable;
    let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b'=';
    if name.is_empty() || name.starts_with('#') || !name.bytes().all(is_plain) {
        return Err(
            "Docker reads only names of visible ASCII characters without =, none of which begins with #",
        );
    }
    if value.contains(['\0', '\n', '\r']) {
        return Err("Docker reads only values of one line");
    }
    let line = format!("{name}={value}");
    match line.len() < MAX_DOCKER_LINE {
        true => Ok(line),
        false => Err("Docker reads only lines below 64 KiB"),
    }
}

/// A line of an `EnvironmentFile=`: between double quotes a backslash stands before `"`, itself, a
/// backtick and `$` (systemd.exec(5)). Control characters but tab and line break are refused there.
fn systemd(variable: &Variable) -> Result<String, &'static str> {
    let Variable { name, value } = variable;
    if !is_identifier(name) {
        return Err(
            "systemd knows only names of letters, digits and _, none of which begins with a digit",
        );
    }
    if value
        .chars()
        .any(|c| c.is_ascii_control() && !matches!(c, '\t' | '\n'))
    {
        return Err("systemd takes no control characters in values but tab and line break");
    }
    let mut line = format!("{name}=\"");
    for letter in value.chars() {
        if matches!(letter, '"' | '\\' | '`' | '$') {
            line.push('\\');
        }
        line.push(letter);
    }
    line.push('"');
    Ok(line)
}

/// One object, with its keys in the order of the variables.
fn json(variables: &[Variable]) -> Text {
    let mut text = String::from("{");
    for (place, Variable { name, value }) in variables.iter().enumerate() {
        let before = if place == 0 { "\n  " } else { ",\n  " };
        let (name, value) = (
            serde_json::Value::from(&**name),
            serde_json::Value::from(&**value),
        );
        text.push_str(&format!("{before}{name}: {value}"));
    }
    text.push_str(if variables.is_empty() { "}\n" } else { "\n}\n" });
    Text {
        text,
        left_out: Vec::new(),
    }
}

/// Whether a shell takes it as a name (XBD 3.216).
fn is_identifier(name: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    let mut bytes = name.bytes();
    bytes.next().is_some_and(is_letter) && bytes.all(|b| is_letter(b) || b.is_ascii_digit())
}

#[cfg(test)]
mod tests;
