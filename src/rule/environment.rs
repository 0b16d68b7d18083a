//! The one template engine: strict about undefined names, counted in fuel, and with nothing in it
//! that a rule does not need.

use minijinja::{AutoEscape, Environment, Error, ErrorKind, UndefinedBehavior, Value, syntax::SyntaxConfig};

/// Filters that can make much out of little, or show how things are inside.
const FILTERS_REMOVED: [&str; 5] = ["indent", "tojson", "format", "pprint", "urlencode"];
const GLOBALS_REMOVED: [&str; 4] = ["range", "debug", "lipsum", "namespace"];
/// Parentheses and blocks in each other.
const RECURSION_MAX: usize = 64;

pub(super) fn environment() -> Environment<'static> {
    let mut environment = Environment::new();
    for name in FILTERS_REMOVED {
        environment.remove_filter(name);
    }
    for name in GLOBALS_REMOVED {
        environment.remove_global(name);
    }
    environment.add_filter("tojson", to_json);
    environment.add_filter("urlencode", url_encode);
    environment.set_undefined_behavior(UndefinedBehavior::Strict);
    // Templates are named after their fields: a parameter that ends in `.html` must not change what
    // is rendered.
    environment.set_auto_escape_callback(|_| AutoEscape::None);
    environment.set_recursion_limit(RECURSION_MAX);
    // Keeps where in the template a failure is. What it also keeps of the context is never printed.
    environment.set_debug(true);
    if let Ok(syntax) = SyntaxConfig::builder().keep_trailing_newline(true).build() {
        environment.set_syntax(syntax);
    }
    environment
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
