//! `{generate: {count, item, i}}`: a list that is too long to write.
//!
//! `i` says which numbers are filled in, as in `0..count-1`; `{i}`, `{i + 1}`, `{i mod 255}` and the
//! like stand in any text of the item, its keys included.

use serde_json::{Map, Value};

/// Longest list.
const MAX_COUNT: u64 = 100_000;

/// A value with its lists written out.
///
/// # Errors
/// A list that is not written as the module says.
pub fn expand(value: &Value) -> Result<Value, String> {
    if let Some(recipe) = value.get("generate") {
        return list(value, recipe).map_err(|error| format!("generate: {error}"));
    }
    match value {
        Value::Array(values) => values.iter().map(expand).collect(),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| Ok((key.clone(), expand(value)?)));
            Ok(Value::Object(pairs.collect::<Result<Map<_, _>, String>>()?))
        }
        other => Ok(other.clone()),
    }
}

fn list(value: &Value, recipe: &Value) -> Result<Value, String> {
    let recipe = recipe
        .as_object()
        .filter(|_| value.as_object().is_some_and(|m| m.len() == 1));
    let recipe = recipe.ok_or("stands beside other keys or is not a map")?;
    if let Some(key) = recipe
        .keys()
        .find(|key| !["count", "item", "i"].contains(&key.as_str()))
    {
        return Err(format!("unknown key {key}"));
    }
    let count = recipe.get("count").and_then(Value::as_u64);
    let count = count
        .filter(|count| *count <= MAX_COUNT)
        .ok_or("count is missing or too large")?;
    let item = recipe.get("item").ok_or("item is missing")?;
    let first = match recipe.get("i") {
        None => 0,
        Some(range) => start(range, count)?,
    };
    (first..first + count).map(|i| filled(item, i)).collect()
}

/// The first number of `FIRST..LAST`, which must hold `count` of them.
fn start(range: &Value, count: u64) -> Result<u64, String> {
    let wrong = || format!("i is {range}; use FIRST..LAST, of which there are count");
    let (first, last) = range
        .as_str()
        .and_then(|text| text.split_once(".."))
        .ok_or_else(wrong)?;
    let first: u64 = first.trim().parse().map_err(|_| wrong())?;
    let last = match last.replace(' ', "").as_str() {
        "count-1" => count.checked_sub(1),
        "count" => Some(count),
        number => number.parse().ok(),
    };
    match last.and_then(|last| last.checked_add(1)?.checked_sub(first)) {
        Some(number) if number == count => Ok(first),
        _ => Err(wrong()),
    }
}

fn filled(item: &Value, i: u64) -> Result<Value, String> {
    match item {
        Value::String(text) => Ok(Value::String(text_with(text, i)?)),
        Value::Array(values) => values.iter().map(|value| filled(value, i)).collect(),
        Value::Object(map) => {
            let pairs = map
                .iter()
                .map(|(key, value)| Ok((text_with(key, i)?, filled(value, i)?)));
            Ok(Value::Object(pairs.collect::<Result<Map<_, _>, String>>()?))
        }
        other => Ok(other.clone()),
    }
}

fn text_with(text: &str, i: u64) -> Result<String, String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('{') {
        let (formula, after) = after
            .split_once('}')
            .ok_or_else(|| format!("{text:?} ends in {{"))?;
        let number =
            number(formula, i).ok_or_else(|| format!("{{{formula}}} is no formula of i"))?;
        out.push_str(&format!("{before}{number}"));
        rest = after;
    }
    Ok(out + rest)
}

fn number(formula: &str, i: u64) -> Option<u64> {
    let mut words = formula.split_whitespace();
    let mut number = (words.next()? == "i").then_some(i)?;
    while let Some(operator) = words.next() {
        let operand: u64 = words.next()?.parse().ok()?;
        number = match operator {
            "mod" | "%" => number.checked_rem(operand)?,
            "div" | "/" => number.checked_div(operand)?,
            "+" => number.checked_add(operand)?,
            "-" => number.checked_sub(operand)?,
            "*" => number.checked_mul(operand)?,
            _ => return None,
        };
    }
    Some(number)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_list_is_written_out() {
        let value = json!({"a": [{"generate": {
            "count": 3, "i": "1..3", "item": {"k{i}": ["10.0.{i div 2}.{i mod 2}", 7]},
        }}]});
        let whole = expand(&value).unwrap();
        assert_eq!(
            whole,
            json!({"a": [[
                {"k1": ["10.0.0.1", 7]}, {"k2": ["10.0.1.0", 7]}, {"k3": ["10.0.1.1", 7]},
            ]]})
        );
        assert_eq!(
            expand(&json!({"generate": {"count": 0, "item": 1}})),
            Ok(json!([]))
        );
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        for recipe in [
            json!({"count": 2, "item": "{j}"}),
            json!({"count": 2, "item": "{i mod 0}"}),
            json!({"count": 2, "item": "{i"}),
            json!({"count": 2, "item": 1, "i": "0..2"}),
            json!({"count": 2, "item": 1, "i": 0}),
            json!({"count": 2, "item": 1, "i": "1..18446744073709551615"}),
            json!({"count": 2, "item": 1, "start": 4}),
            json!({"count": 100_001, "item": 1}),
            json!({"count": -1, "item": 1}),
            json!({"count": 1}),
            json!([]),
        ] {
            assert!(expand(&json!({"generate": recipe})).is_err(), "{recipe}");
        }
        assert!(expand(&json!({"generate": {"count": 1, "item": 1}, "more": 1})).is_err());
    }
}
