//! The one template engine: strict about undefined names, counted in fuel, and with nothing in it
//! that a rule does not need.

use super::operators;
use minijinja::{
    AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior, Value, escape_formatter, filters,
    syntax::SyntaxConfig,
    value::{Rest, ValueKind},
};

/// Filters that can make much out of little, or show how things are inside.
const FILTERS_REMOVED: [&str; 5] = ["indent", "tojson", "format", "pprint", "urlencode"];
const GLOBALS_REMOVED: [&str; 4] = ["range", "debug", "lipsum", "namespace"];
/// Parentheses and blocks in each other.
const RECURSION_MAX: usize = 64;

/// `is_html` says by a template's name whether its text is HTML.
pub(super) fn environment(is_html: fn(&str) -> bool) -> Environment<'static> {
    let mut environment = Environment::new();
    for name in FILTERS_REMOVED {
        environment.remove_filter(name);
    }
    for name in GLOBALS_REMOVED {
        environment.remove_global(name);
    }
    environment.add_filter("tojson", to_json);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    for (name, builtin) in text_filters() {
        environment.add_filter(name, move |state: &mut State<'_, '_>, mut arguments: Rest<Value>| {
            arguments.iter_mut().for_each(null_to_nothing);
            builtin.call(state, &arguments)
        });
    }
    operators::register(&mut environment);
    environment.set_formatter(format_value);
    environment.set_auto_escape_callback(move |name| {
        if is_html(name) {
            AutoEscape::Html
        } else {
            AutoEscape::None
        }
    });
    environment.set_recursion_limit(RECURSION_MAX);
    // Keeps where in the template a failure is. The error also keeps parts of the context, which
    // are never printed.
    environment.set_debug(true);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment
}

/// Filters that make a text of any value: by themselves they would make the word `None` of `null`.
fn text_filters() -> [(&'static str, Value); 11] {
    [
        ("upper", Value::from_function(filters::upper)),
        ("lower", Value::from_function(filters::lower)),
        ("title", Value::from_function(filters::title)),
        ("capitalize", Value::from_function(filters::capitalize)),
        ("trim", Value::from_function(filters::trim)),
        ("string", Value::from_function(filters::string)),
        ("join", Value::from_function(filters::join)),
        ("escape", Value::from_function(filters::escape)),
        ("e", Value::from_function(filters::escape)),
        ("safe", Value::from_function(filters::safe)),
        ("urlencode", Value::from_function(url_encode)),
    ]
}

/// `null` is an empty text, in a list as well.
fn null_to_nothing(value: &mut Value) {
    if value.is_none() {
        *value = Value::from("");
    } else if value.kind() == ValueKind::Seq
        && let Ok(items) = value.try_iter()
    {
        let items: Vec<Value> = items.collect();
        if items.iter().any(Value::is_none) {
            let texts = items.into_iter().map(|mut item| {
                null_to_nothing(&mut item);
                item
            });
            *value = texts.collect();
        }
    }
}

/// A value as text: `null` and an empty list are nothing, a list and an object are JSON. Senders
/// write `null` for a value that they do not have, and no word of a programming language may reach
/// a person in its place.
fn format_value(out: &mut Output<'_>, state: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    match value.kind() {
        ValueKind::None => Ok(()),
        ValueKind::Seq | ValueKind::Iterable if value.len() == Some(0) => Ok(()),
        ValueKind::Seq | ValueKind::Map | ValueKind::Iterable => {
            escape_formatter(out, state, &Value::from(to_json(value.clone())?))
        }
        _ => escape_formatter(out, state, value),
    }
}

/// JSON on one line, without the options of the engine's own filter.
#[expect(clippy::needless_pass_by_value, reason = "the engine's calling convention")]
fn to_json(value: Value) -> Result<String, Error> {
    serde_json::to_string(&value).map_err(|_| Error::new(ErrorKind::BadSerialization, "not a JSON value"))
}

/// Percent-encoding of one text for use inside a URL.
fn url_encode(text: &str) -> String {
    use std::fmt::Write;
    text.bytes()
        .fold(String::with_capacity(text.len()), |mut encoded, byte| {
            if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
                encoded.push(char::from(byte));
            } else {
                let _ = write!(encoded, "%{byte:02X}");
            }
            encoded
        })
}
