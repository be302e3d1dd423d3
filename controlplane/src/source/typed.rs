//! A tree of values to an object of the Kubernetes API.
//!
//! Guarantees: a mistake is named with the path of its field, in the words of serde_json; fields
//! that the type does not have are found. Reads the tree as it stands, without a copy.

use std::cell::RefCell;
use std::fmt::{self, Display};

use serde::de::value::StrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Unexpected, Visitor,
};
use serde::forward_to_deserialize_any;

use super::document::{Node, Value};

/// Fields without effect of which one object keeps the path; a wrong indentation can make hundreds.
const MAX_UNKNOWN: usize = 5;

/// Fields that a type does not have.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Unknown {
    /// Paths of the first ones, in the order written.
    pub(super) first: Vec<String>,
    /// How many there are beside.
    pub(super) more: usize,
}

/// Why a tree is not an object of a type.
#[derive(Debug)]
pub(super) struct Mistyped {
    /// Path of the field, for example `spec.ports[0].port`; empty for the object as a whole.
    pub(super) field: String,
    /// What is wrong with it.
    pub(super) message: String,
}

/// The object that `node` is, and its fields without effect.
///
/// # Errors
/// The first field of a wrong type, or the parent of one that must not be missing.
pub(super) fn read<T: DeserializeOwned>(node: &Node) -> Result<(T, Unknown), Mistyped> {
    let unknown = RefCell::default();
    let path = &Path::Root;
    let reader = Reader {
        node,
        path,
        unknown: &unknown,
    };
    match T::deserialize(reader) {
        Ok(object) => Ok((object, unknown.into_inner())),
        Err(mistake) => Err(Mistyped {
            field: mistake.field.unwrap_or_default(),
            message: mistake.error.to_string(),
        }),
    }
}

/// The way from the object to a value.
#[derive(Debug, Clone, Copy)]
enum Path<'a> {
    Root,
    Key(&'a Path<'a>, &'a str),
    Index(&'a Path<'a>, usize),
}

impl Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Key(Path::Root, key) => f.write_str(key),
            Path::Key(parent, key) => write!(f, "{parent}.{key}"),
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// A mistake that finds its place on the way up.
#[derive(Debug)]
struct Mistake {
    field: Option<String>,
    error: serde_json::Error,
}

impl Mistake {
    fn at(mut self, path: Path<'_>) -> Self {
        self.field.get_or_insert_with(|| path.to_string());
        self
    }
}

impl From<serde_json::Error> for Mistake {
    fn from(error: serde_json::Error) -> Self {
        Self { field: None, error }
    }
}

impl Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl std::error::Error for Mistake {}

impl de::Error for Mistake {
    fn custom<T: Display>(message: T) -> Self {
        <serde_json::Error as de::Error>::custom(message).into()
    }

    fn invalid_type(found: Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        <serde_json::Error as de::Error>::invalid_type(found, wanted).into()
    }

    fn invalid_value(found: Unexpected<'_>, wanted: &dyn de::Expected) -> Self {
        <serde_json::Error as de::Error>::invalid_value(found, wanted).into()
    }
}

/// A value that is read.
#[derive(Clone, Copy)]
struct Reader<'a, 'de> {
    node: &'de Node,
    path: &'a Path<'a>,
    unknown: &'a RefCell<Unknown>,
}

impl<'de> Reader<'_, 'de> {
    fn child<S: DeserializeSeed<'de>>(
        self,
        seed: S,
        node: &'de Node,
        path: Path<'_>,
    ) -> Result<S::Value, Mistake> {
        let unknown = self.unknown;
        let reader = Reader {
            node,
            path: &path,
            unknown,
        };
        seed.deserialize(reader).map_err(|mistake| mistake.at(path))
    }

    /// Takes note of a field that nobody asks for. What it says without a value has no effect
    /// anyway, and what an object is has been looked at before.
    fn ignore(self) {
        let identity = matches!(self.path, Path::Key(Path::Root, "apiVersion" | "kind"));
        if identity || self.node.value == Value::Null {
            return;
        }
        let mut unknown = self.unknown.borrow_mut();
        match unknown.first.len() < MAX_UNKNOWN {
            true => unknown.first.push(self.path.to_string()),
            false => unknown.more += 1,
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'_, 'de> {
    type Error = Mistake;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(number) => Ok(number.deserialize_any(visitor)?),
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::List(items) => {
                let mut children = Children::of(self, items);
                let value = visitor.visit_seq(&mut children)?;
                children.end(&"fewer elements in array").map(|()| value)
            }
            Value::Map(entries) => {
                let mut children = Children::of(self, entries);
                let value = visitor.visit_map(&mut children)?;
                children.end(&"fewer elements in map").map(|()| value)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        match self.node.value {
            Value::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        visitor.visit_newtype_struct(self)
    }

    /// No kind has variants that hold something.
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Mistake> {
        match &self.node.value {
            Value::String(text) => visitor.visit_enum(name(text)),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Mistake> {
        self.ignore();
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier
    }
}

fn name(text: &str) -> StrDeserializer<'_, Mistake> {
    text.into_deserializer()
}

/// What a list or a mapping holds, one after the other.
struct Children<'a, 'de, T> {
    parent: Reader<'a, 'de>,
    children: &'de [T],
    next: usize,
}

impl<'a, 'de, T> Children<'a, 'de, T> {
    fn of(parent: Reader<'a, 'de>, children: &'de [T]) -> Self {
        Self {
            parent,
            children,
            next: 0,
        }
    }

    fn left(&self) -> usize {
        self.children.len().saturating_sub(self.next)
    }

    /// Refuses what is left.
    fn end(&self, wanted: &dyn de::Expected) -> Result<(), Mistake> {
        match self.left() {
            0 => Ok(()),
            _ => Err(de::Error::invalid_length(self.children.len(), wanted)),
        }
    }
}

impl<'de> SeqAccess<'de> for Children<'_, 'de, Node> {
    type Error = Mistake;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        let Some(item) = self.children.get(self.next) else {
            return Ok(None);
        };
        let path = Path::Index(self.parent.path, self.next);
        self.next += 1;
        self.parent.child(seed, item, path).map(Some)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left())
    }
}

impl<'de> MapAccess<'de> for Children<'_, 'de, (String, Node)> {
    type Error = Mistake;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Mistake> {
        match self.children.get(self.next) {
            Some((key, _)) => seed.deserialize(name(key)).map(Some),
            None => Ok(None),
        }
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Mistake> {
        let Some((key, value)) = self.children.get(self.next) else {
            return Err(de::Error::custom("a value was asked for before its key"));
        };
        self.next += 1;
        let path = Path::Key(self.parent.path, key);
        self.parent.child(seed, value, path)
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left())
    }
}

#[cfg(test)]
mod tests;
