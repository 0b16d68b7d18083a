//! A rule compiled once: its expression, and each text of its parameters as a template.

use super::operators::{NO_ORDER, Rewritten};
use super::{
    Budget, Context, FieldProblem, PARAMETERS_BYTES_MAX, RENDERED_BYTES_MAX, RuleError, TEMPLATE_BYTES_MAX,
    TEXT_BYTES_MAX, UnreadableBody,
    context::{NAMES, ORGANISATION},
    environment::environment,
};
use crate::{
    action::{self, EVENT_KEY, FrozenRequest},
    domain::{ActionKind, Cause, RuleSpec},
};
use minijinja::{Environment, Error, ErrorKind};
use serde_json::{Map, Value};
use std::{
    collections::{HashMap, HashSet},
    io,
};

/// Name of the template that the expression becomes.
const WHEN: &str = "when";
/// Arrays and objects in each other, in parameters.
const DEPTH_MAX: usize = 32;

/// A rule's expression and templates, ready to run against any number of events.
#[derive(Debug)]
pub struct Compiled {
    environment: Environment<'static>,
    kind: ActionKind,
    has_when: bool,
    parameters: Vec<(String, Part)>,
    /// Templates whose operators were replaced, by their fields.
    rewritten: HashMap<String, Rewritten>,
    asks_organisation: bool,
}

/// The request that a rule rendered for an event.
#[derive(Clone, PartialEq, Debug)]
pub struct Rendered {
    pub request: FrozenRequest,
    /// Which credential the action uses: the destination's name for `http.post`, else `''`.
    pub credential_name: String,
}

#[derive(Debug)]
enum Part {
    Literal(Value),
    /// The name of its template, which is its field.
    Template(String),
    Array(Vec<Self>),
    Object(Vec<(String, Self)>),
}

impl Compiled {
    /// # Errors
    /// Every text that does not compile or names something unknown, with its field.
    pub fn new(spec: &RuleSpec) -> Result<Self, Vec<FieldProblem>> {
        let mut compiler = Compiler {
            environment: environment(match spec.action {
                ActionKind::ResendSendEmail => |field| field == "parameters.html",
                ActionKind::TwilioSendSms | ActionKind::HttpPost | ActionKind::GoogleCalendarCreateEvent => |_| false,
            }),
            problems: Vec::new(),
            bytes: 0,
            rewritten: HashMap::new(),
            asks_organisation: false,
        };
        if let Some(when) = &spec.when {
            compiler.expression(when);
        }
        let parameters = spec
            .parameters
            .iter()
            .map(|(name, value)| (name.clone(), compiler.part(&format!("parameters.{name}"), value, 0)))
            .collect();
        if compiler.bytes > PARAMETERS_BYTES_MAX {
            compiler.wrong(
                "parameters",
                format!("the texts are longer than {PARAMETERS_BYTES_MAX} bytes together"),
            );
        }
        if compiler.problems.is_empty() {
            Ok(Self {
                environment: compiler.environment,
                kind: spec.action,
                has_when: spec.when.is_some(),
                parameters,
                rewritten: compiler.rewritten,
                asks_organisation: compiler.asks_organisation,
            })
        } else {
            Err(compiler.problems)
        }
    }

    /// Whether the rule names the settings of its organisation.
    #[must_use]
    pub const fn asks_organisation(&self) -> bool {
        self.asks_organisation
    }

    /// Whether the rule's expression holds.
    ///
    /// # Errors
    /// It could not be evaluated: an undefined name, a wrong type, or the budget is used up.
    pub fn matches(&self, context: &Context, budget: &mut Budget) -> Result<bool, RuleError> {
        Ok(!self.has_when || !self.run(WHEN, context, budget, TEXT_BYTES_MAX)?.is_empty())
    }

    /// Renders the parameters and freezes the request.
    ///
    /// # Errors
    /// A template failed, a limit was reached, or the action refuses what came out.
    pub fn render(&self, context: &Context, budget: &mut Budget) -> Result<Rendered, RuleError> {
        let mut bytes_left = RENDERED_BYTES_MAX;
        let mut rendered = Map::with_capacity(self.parameters.len());
        for (name, part) in &self.parameters {
            rendered.insert(name.clone(), self.render_part(part, context, budget, &mut bytes_left)?);
        }
        if self.kind == ActionKind::HttpPost {
            let event = context
                .payload(!rendered.contains_key("body"))
                .map_err(|error| unreadable(error, None))?;
            rendered.insert(EVENT_KEY.to_owned(), event);
        }
        let request = action::get(self.kind).freeze(rendered).map_err(|error| RuleError {
            cause: error.cause,
            detail: format!("{}: {}", error.field, error.problem),
        })?;
        let credential_name = match self.kind {
            ActionKind::HttpPost => request
                .0
                .get("destination")
                .and_then(Value::as_str)
                .unwrap_or_default()
                .to_owned(),
            ActionKind::TwilioSendSms | ActionKind::ResendSendEmail | ActionKind::GoogleCalendarCreateEvent => {
                String::new()
            }
        };
        Ok(Rendered {
            request,
            credential_name,
        })
    }

    /// One template by its field, for the tests of the engine.
    #[cfg(test)]
    pub(super) fn text(&self, field: &str, context: &Context, budget: &mut Budget) -> Result<String, RuleError> {
        self.run(field, context, budget, TEXT_BYTES_MAX)
    }

    fn render_part(
        &self,
        part: &Part,
        context: &Context,
        budget: &mut Budget,
        bytes_left: &mut usize,
    ) -> Result<Value, RuleError> {
        Ok(match part {
            Part::Literal(value) => value.clone(),
            Part::Template(field) => {
                let text = self.run(field, context, budget, (*bytes_left).min(TEXT_BYTES_MAX))?;
                *bytes_left -= text.len();
                Value::String(text)
            }
            Part::Array(parts) => Value::Array(
                parts
                    .iter()
                    .map(|part| self.render_part(part, context, budget, bytes_left))
                    .collect::<Result<_, _>>()?,
            ),
            Part::Object(parts) => Value::Object(
                parts
                    .iter()
                    .map(|(name, part)| Ok((name.clone(), self.render_part(part, context, budget, bytes_left)?)))
                    .collect::<Result<_, RuleError>>()?,
            ),
        })
    }

    fn run(&self, field: &str, context: &Context, budget: &mut Budget, bytes_max: usize) -> Result<String, RuleError> {
        let limit = |what: String| RuleError {
            cause: Cause::TemplateLimit,
            detail: what,
        };
        if budget.remaining == 0 {
            return Err(limit(format!(
                "{field}: the rules of this organisation used up the work that one event may cost"
            )));
        }
        // The clone shares everything but the fuel.
        let mut environment = self.environment.clone();
        environment.set_fuel(Some(budget.remaining));
        let mut output = Capped {
            bytes: Vec::new(),
            bytes_max,
            is_full: false,
        };
        let result = environment
            .get_template(field)
            .and_then(|template| template.render_captured_to(context.value().clone(), &mut output));
        match result {
            Ok(captured) => {
                budget.spend(captured.state().fuel_levels().map_or(0, |(consumed, _)| consumed));
                drop(captured);
                rendered_text(field, output.bytes)
            }
            Err(error) if is_out_of_fuel(&error) => {
                budget.remaining = 0;
                Err(limit(format!(
                    "{}: the rules of this organisation used up the work that one event may cost",
                    place(field, &error)
                )))
            }
            Err(_) if output.is_full => {
                budget.spend_failure();
                Err(limit(format!(
                    "{field}: the text that came out is longer than {bytes_max} bytes"
                )))
            }
            Err(error) => {
                budget.spend_failure();
                if let Some(body) = context.unreadable()
                    && error.kind() == ErrorKind::UndefinedError
                {
                    return Err(unreadable(body, Some(field)));
                }
                let blamed = blamed(field, &error, self.rewritten.get(field));
                let why = error.detail().filter(|detail| *detail == NO_ORDER);
                let why = why.map_or_else(String::new, |why| format!(": {why}"));
                Err(RuleError {
                    cause: Cause::TemplateFailed,
                    detail: format!("{}: {}{blamed}{why}", place(field, &error), error.kind()),
                })
            }
        }
    }
}

fn rendered_text(field: &str, bytes: Vec<u8>) -> Result<String, RuleError> {
    // No provider takes a NUL, and Postgres stores no text with one.
    if bytes.contains(&0) {
        return Err(RuleError {
            cause: Cause::TemplateFailed,
            detail: format!("{field}: the text that came out contains a NUL character"),
        });
    }
    String::from_utf8(bytes).map_err(|_| RuleError {
        cause: Cause::TemplateLimit,
        detail: format!("{field}: the text that came out is not UTF-8"),
    })
}

/// The event's body is absent: `field` asked for it, or the whole of it was to be posted.
fn unreadable(error: UnreadableBody, field: Option<&str>) -> RuleError {
    RuleError {
        cause: Cause::UnreadableBody,
        detail: field.map_or_else(|| error.to_string(), |field| format!("{field}: {error}")),
    }
}

/// A failure inside a filter may carry the real one as its source.
fn is_out_of_fuel(error: &Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error
            .downcast_ref::<Error>()
            .is_some_and(|error| error.kind() == ErrorKind::OutOfFuel)
        {
            return true;
        }
        next = error.source();
    }
    false
}

fn place(field: &str, error: &Error) -> String {
    match error.line() {
        Some(line) if line > 1 => format!("{field}, line {line}"),
        _ => field.to_owned(),
    }
}

/// The block of the rule's own text that failed. The engine's own words are not used: they can
/// repeat values of the event.
fn blamed(field: &str, error: &Error, rewritten: Option<&Rewritten>) -> String {
    let Some((source, range)) = error.template_source().zip(error.range()) else {
        return String::new();
    };
    let (source, range) = rewritten.map_or((source, range.clone()), |rewritten| rewritten.original(range));
    let text = if field == WHEN {
        // The expression stands inside a block that the author did not write.
        source.get(range).filter(|text| !text.starts_with("{%"))
    } else {
        let begin = source
            .get(..=range.start)
            .and_then(|before| before.rfind("{{").max(before.rfind("{%")))
            .unwrap_or(range.start);
        let end = source
            .get(range.end..)
            .and_then(|after| after.find("}}").into_iter().chain(after.find("%}")).min())
            .map_or(range.end, |at| range.end + at);
        source.get(begin..end).map(|block| {
            block
                .trim_start_matches(['{', '%', '-', ' '])
                .trim_end_matches(['}', '%', '-', ' '])
        })
    };
    text.map_or_else(String::new, |text| {
        format!(", at `{}`", text.chars().take(80).collect::<String>())
    })
}

struct Capped {
    bytes: Vec<u8>,
    bytes_max: usize,
    is_full: bool,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > self.bytes_max {
            self.is_full = true;
            return Err(io::Error::other("the text is too long"));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Compiler {
    environment: Environment<'static>,
    problems: Vec<FieldProblem>,
    bytes: usize,
    rewritten: HashMap<String, Rewritten>,
    asks_organisation: bool,
}

impl Compiler {
    fn wrong(&mut self, field: &str, problem: impl Into<String>) {
        self.problems.push(FieldProblem {
            field: field.to_owned(),
            problem: problem.into(),
        });
    }

    /// Checked as an expression by itself first, so that it cannot close the block that it is put
    /// into. As a block it is strict about an undefined result as well, and says how much fuel it
    /// used.
    fn expression(&mut self, when: &str) {
        if when.len() > TEMPLATE_BYTES_MAX {
            self.wrong(WHEN, format!("longer than {TEMPLATE_BYTES_MAX} bytes"));
        } else if let Err(error) = self.environment.compile_expression_owned(when.to_owned()).map(drop) {
            let problem = describe(&error);
            self.wrong(WHEN, problem);
        } else {
            self.add(WHEN, format!("{{% if ({when}) %}}1{{% endif %}}"));
        }
    }

    fn part(&mut self, field: &str, value: &Value, depth: usize) -> Part {
        if depth > DEPTH_MAX {
            self.wrong(field, format!("more than {DEPTH_MAX} arrays and objects in each other"));
            return Part::Literal(Value::Null);
        }
        match value {
            Value::String(text) => {
                self.bytes += text.len();
                if text.contains('\0') {
                    self.wrong(field, "contains a NUL character");
                    return Part::Literal(Value::Null);
                }
                if text.len() > TEMPLATE_BYTES_MAX {
                    self.wrong(field, format!("longer than {TEMPLATE_BYTES_MAX} bytes"));
                    return Part::Literal(Value::Null);
                }
                if !text.contains("{{") && !text.contains("{%") && !text.contains("{#") {
                    return Part::Literal(value.clone());
                }
                self.add(field, text.clone());
                Part::Template(field.to_owned())
            }
            Value::Array(values) => Part::Array(
                values
                    .iter()
                    .enumerate()
                    .map(|(i, value)| self.part(&format!("{field}[{i}]"), value, depth + 1))
                    .collect(),
            ),
            Value::Object(values) => Part::Object(
                values
                    .iter()
                    .map(|(name, value)| (name.clone(), self.part(&format!("{field}.{name}"), value, depth + 1)))
                    .collect(),
            ),
            Value::Null | Value::Bool(_) | Value::Number(_) => Part::Literal(value.clone()),
        }
    }

    fn add(&mut self, field: &str, source: String) {
        let rewritten = Rewritten::new(&source);
        // As its author wrote it first: what is wrong is said in the author's words.
        if let Err(error) = self.environment.add_template_owned(field.to_owned(), source) {
            let problem = describe(&error);
            self.wrong(field, problem);
            return;
        }
        let named = match self.environment.get_template(field) {
            Ok(template) => template.undeclared_variables(false),
            Err(_) => HashSet::new(),
        };
        self.asks_organisation |= named.contains(ORGANISATION);
        let is_unknown = |name: &String| !NAMES.contains(&name.as_str());
        let mut unknown: Vec<String> = named.into_iter().filter(is_unknown).collect();
        unknown.retain(|name| !self.environment.globals().any(|(global, _)| global == name));
        unknown.sort();
        for name in unknown {
            self.wrong(field, format!("unknown name `{name}`; there are {}", NAMES.join(", ")));
        }
        let Some(rewritten) = rewritten else { return };
        match self
            .environment
            .add_template_owned(field.to_owned(), rewritten.text.clone())
        {
            Ok(()) => {
                self.rewritten.insert(field.to_owned(), rewritten);
            }
            Err(error) => {
                let problem = format!("the comparisons cannot be read: {}", error.kind());
                self.wrong(field, problem);
            }
        }
    }
}

/// The fault of a text that does not compile. It is the author's own text: the engine's words may
/// be shown.
fn describe(error: &Error) -> String {
    let detail = error.detail().unwrap_or_default();
    match error.line() {
        Some(line) => format!(
            "line {line}: {}{}{detail}",
            error.kind(),
            if detail.is_empty() { "" } else { ": " }
        ),
        None => format!("{}{}{detail}", error.kind(), if detail.is_empty() { "" } else { ": " }),
    }
}
