//! Rules in words: which numbers, which Pods, which text for a number.

use serde_json::{Map, Value};

/// Most numbers that a rule may stand for.
const MAX_NUMBERS: usize = 100_000;

/// A number of a name: `i` of a Pod, `s` of a slice.
pub type Variable = (&'static str, usize);

/// Numbers of a list: `0..79, 100..119` or `1, 5, 9 ... 245`.
pub fn numbers(text: &str) -> Result<Vec<usize>, String> {
    let mut numbers: Vec<usize> = Vec::new();
    for item in text.split(',').map(str::trim) {
        if let Some((first, last)) = item.split_once("...") {
            let first = match first.trim() {
                "" => None,
                first => Some(number(first)?),
            };
            numbers.extend(first);
            let [.., a, b] = numbers[..] else {
                return Err(format!("{text:?} shows no step"));
            };
            let step = b.checked_sub(a).filter(|step| *step > 0);
            let step = step.ok_or_else(|| format!("{text:?} shows no step"))?;
            let more = (b..=number(last)?).step_by(step).skip(1);
            numbers.extend(more.take(MAX_NUMBERS));
        } else if let Some((first, last)) = item.split_once("..") {
            numbers.extend((number(first)?..=number(last)?).take(MAX_NUMBERS));
        } else {
            numbers.push(number(item)?);
        }
    }
    match numbers.len() <= MAX_NUMBERS {
        true => Ok(numbers),
        false => Err(format!("{text:?} is more than {MAX_NUMBERS} numbers")),
    }
}

fn number(text: &str) -> Result<usize, String> {
    let number = text.trim().parse();
    number.map_err(|_| format!("{text:?} is not a number"))
}

/// The text before a remark in brackets, and the remark.
pub fn remark(text: &str) -> (&str, Option<&str>) {
    match text.split_once('(') {
        Some((before, inner)) => (before.trim(), Some(inner.trim_end_matches(')').trim())),
        None => (text.trim(), None),
    }
}

/// Whether a condition holds, `i mod 3 = 0`, `i div 30 = s` or `i = 0..79`.
pub fn holds(condition: &str, variables: &[Variable]) -> Result<bool, String> {
    let sides = condition.split_once('=');
    let (left, right) = sides.ok_or_else(|| format!("{condition:?} is not a condition"))?;
    let left = value(left, variables)?;
    match value(right, variables) {
        Ok(right) => Ok(left == right),
        Err(_) => Ok(numbers(right)?.contains(&left)),
    }
}

/// Value of `i`, `7`, `i div 256`, `8080 + i mod 5`; from left to right but for `+` and `-`, which
/// come last.
fn value(text: &str, variables: &[Variable]) -> Result<usize, String> {
    if let Some((left, right)) = text.split_once('+') {
        return Ok(value(left, variables)?.saturating_add(value(right, variables)?));
    }
    if let Some((left, right)) = text.split_once('-') {
        return Ok(value(left, variables)?.saturating_sub(value(right, variables)?));
    }
    let mut words = text.split_whitespace();
    let operand = |word: Option<&str>| {
        let word = word.ok_or_else(|| format!("{text:?} ends too early"))?;
        let variable = variables.iter().find(|(name, _)| *name == word);
        variable.map_or_else(|| number(word), |(_, value)| Ok(*value))
    };
    let mut result = operand(words.next())?;
    while let Some(operator) = words.next() {
        let operand = operand(words.next())?;
        result = match operator {
            "div" => result.checked_div(operand),
            "mod" => result.checked_rem(operand),
            "*" => result.checked_mul(operand),
            other => return Err(format!("{other:?} in {text:?} is no operator")),
        }
        .ok_or_else(|| format!("{text:?} has no value"))?;
    }
    Ok(result)
}

/// `text` with every `{...}` replaced by its value.
pub fn template(text: &str, variables: &[Variable]) -> Result<String, String> {
    let mut result = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let inner = after.split_once('}');
        let (inner, after) = inner.ok_or_else(|| format!("{text:?} lacks a }}"))?;
        result.push_str(before);
        result.push_str(&value(inner, variables)?.to_string());
        rest = after;
    }
    result.push_str(rest);
    Ok(result)
}

/// A value in which every text is a template; one that is nothing else becomes a number.
pub fn filled(form: &Value, variables: &[Variable]) -> Result<Value, String> {
    Ok(match form {
        Value::String(text) => match text.strip_prefix('{').and_then(|t| t.strip_suffix('}')) {
            Some(inner) if !inner.contains('{') => value(inner, variables)?.into(),
            _ => template(text, variables)?.into(),
        },
        Value::Array(values) => {
            let values = values.iter().map(|value| filled(value, variables));
            Value::Array(values.collect::<Result<_, _>>()?)
        }
        Value::Object(map) => {
            let entries = map.iter();
            let entries = entries.map(|(key, v)| Ok((key.clone(), filled(v, variables)?)));
            Value::Object(entries.collect::<Result<Map<_, _>, String>>()?)
        }
        other => other.clone(),
    })
}

/// Numbers that a `generate` stands for: `numbers`, or `count` from `first` on. They are taken out
/// of it; what is left is the form of one thing.
pub fn generated(form: &mut Map<String, Value>) -> Result<Vec<usize>, String> {
    let mut whole = |key: &str| match form.remove(key) {
        None => Ok(None),
        Some(value) => match value.as_u64().and_then(|value| usize::try_from(value).ok()) {
            Some(number) => Ok(Some(number)),
            None => Err(format!("generate.{key} is not a number")),
        },
    };
    let (count, first) = (whole("count")?, whole("first")?);
    match (form.remove("numbers"), count) {
        (Some(Value::String(text)), None) if first.is_none() => numbers(&text),
        (None, Some(count)) if count <= MAX_NUMBERS => {
            let first = first.unwrap_or(0);
            Ok((first..first.saturating_add(count)).collect())
        }
        _ => Err("generate says neither count nor numbers".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_numbers_are_read() {
        assert_eq!(numbers("0..2, 5, 7..8").unwrap(), [0, 1, 2, 5, 7, 8]);
        assert_eq!(numbers("1, 5, 9 ... 17").unwrap(), [1, 5, 9, 13, 17]);
        assert_eq!(numbers("0, 10, ...30").unwrap(), [0, 10, 20, 30]);
        for wrong in ["", "a", "1 ... 5", "5, 5 ... 9", "1.5"] {
            assert!(numbers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn conditions_and_templates_are_read() {
        let at = |i, s| [("i", i), ("s", s)];
        assert!(holds("i mod 3 = 0", &at(9, 0)).unwrap());
        assert!(!holds("i mod 3 = 0", &at(10, 0)).unwrap());
        assert!(holds("i div 30 = s", &at(61, 2)).unwrap());
        assert!(holds("i = 0..3, 61", &at(61, 2)).unwrap());
        assert!(holds("i mod 0 = 0", &at(1, 1)).is_err());
        assert!(holds("now and then", &at(1, 1)).is_err());
        let text = template("10.1.{i div 256}.{i mod 256}", &at(513, 0));
        assert_eq!(text.unwrap(), "10.1.2.1");
        let port = filled(&"{8080 + i mod 5}".into(), &at(7, 0));
        assert_eq!(port.unwrap(), Value::from(8082));
    }
}
