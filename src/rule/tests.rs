//! Rules: checked on save, evaluated in bounds, masked.

use super::*;
use crate::domain::{ActionKind, EventId, EventType, OpeningHours, OrgSettings, Source, Timestamp, TypePattern, Zone};
use serde_json::json;
use std::sync::Arc;

fn spec(when: Option<&str>, parameters: Value) -> RuleSpec {
    let Value::Object(parameters) = parameters else {
        unreachable!("parameters are an object")
    };
    RuleSpec {
        name: "after a call".into(),
        source: Source::Vapi,
        event_type: TypePattern("*".into()),
        when: when.map(str::to_owned),
        action: ActionKind::HttpPost,
        parameters,
        expires_after_seconds: None,
        ignores_quiet_hours: false,
        enabled: true,
    }
}

fn context(source: Source, content_type: &str, query: &str, body: &[u8]) -> Context {
    let event_type = EventType::new(source, "end-of-call-report");
    Context::new(&Sample {
        id: EventId::generate(),
        source,
        event_type: &event_type,
        subject: "call-1",
        time: Timestamp::from_seconds(1_700_000_000),
        received_at: Timestamp::from_seconds(1_700_000_001),
        endpoint: None,
        content_type,
        query,
        headers: &[("X-Request".into(), "seven".into())],
        body,
        settings: None,
    })
}

fn vapi(body: &Value) -> Context {
    context(Source::Vapi, "application/json", "", body.to_string().as_bytes())
}

fn matches(when: &str, body: &Value) -> Result<bool, RuleError> {
    Compiled::new(&spec(Some(when), json!({})))
        .expect("compiles")
        .matches(&vapi(body), &mut Budget::new(100_000))
}

/// Renders one template without the action's say.
fn render(template: &str, context: &Context, budget: &mut Budget) -> Result<String, RuleError> {
    Compiled::new(&spec(None, json!({ "body": template })))
        .expect("compiles")
        .text("parameters.body", context, budget)
}

fn text(template: &str, body: &Value) -> Result<String, RuleError> {
    render(template, &vapi(body), &mut Budget::new(100_000))
}

#[test]
fn expressions_decide_and_are_strict_about_undefined_names() {
    let busy = json!({"message": {"endedReason": "customer-busy", "cost": 0.5}});
    assert_eq!(matches("message.endedReason != \"customer-busy\"", &busy), Ok(false));
    assert_eq!(
        matches("message.cost > 0.1 and event.kind == 'end-of-call-report'", &busy),
        Ok(true)
    );
    assert_eq!(matches("message.transcript is defined", &busy), Ok(false));
    assert_eq!(matches("message.endedReason == '%}'", &busy), Ok(false));
    let error = matches("message.transcript", &busy).expect_err("undefined");
    assert_eq!(error.cause, Cause::TemplateFailed);
    assert!(error.detail.starts_with("when: "), "{}", error.detail);
}

#[test]
fn an_expression_cannot_close_its_block() {
    for when in ["true) %}x{% endif %}{% if (true", "1 %}{{ body }}{% if 1", ")"] {
        let problems = Compiled::new(&spec(Some(when), json!({}))).expect_err(when);
        assert_eq!(problems[0].field, "when");
    }
}

#[test]
fn templates_see_the_documented_names() {
    let body = json!({"message": {"customer": {"number": "+1"}, "duration": 61}});
    assert_eq!(
        text(
            "{{ message.customer.number }} {{ message.duration }} {{ body.message.duration }}",
            &body
        )
        .as_deref(),
        Ok("+1 61 61")
    );
    assert_eq!(
        text(
            "{{ event.type }} {{ event.source }} {{ event.subject }} {{ headers['x-request'] }}",
            &body
        )
        .as_deref(),
        Ok("vapi.end-of-call-report vapi call-1 seven")
    );
    assert_eq!(
        text("{{ event.time }} {{ event.received_at }}", &body).as_deref(),
        Ok("2023-11-14T22:13:20Z 2023-11-14T22:13:21Z")
    );
    assert_eq!(
        text("{{ message.customer | tojson }}\n", &body).as_deref(),
        Ok("{\"number\":\"+1\"}\n")
    );
    let form = context(
        Source::Twilio,
        "application/x-www-form-urlencoded; charset=UTF-8",
        "a=1&b=x%20y&a=2",
        b"From=%2B49&Body=a+b%26c&Empty=&bad=%zz",
    );
    let mut budget = Budget::new(100_000);
    assert_eq!(
        render(
            "{{ params.From }}|{{ body.Body }}|{{ params.Empty }}|{{ params.bad }}",
            &form,
            &mut budget
        )
        .as_deref(),
        Ok("+49|a b&c||%zz")
    );
    assert_eq!(
        render("{{ query.a }}{{ query.b }}", &form, &mut budget).as_deref(),
        Ok("1x y")
    );
}

/// A sender's text is text, whatever it looks like.
#[test]
fn rendered_text_stays_text() {
    let body = json!({"message": {"note": "{{ headers }} {% for x in body %} {# #}", "html": "<b>&\"'"}});
    assert_eq!(
        text("{{ message.note }}", &body).as_deref(),
        Ok("{{ headers }} {% for x in body %} {# #}")
    );
    assert_eq!(text("{{ message.html }}", &body).as_deref(), Ok("<b>&\"'"));
    let named = Compiled::new(&spec(None, json!({"a.html": "{{ message.html }}"}))).expect("compiles");
    assert_eq!(
        named
            .text("parameters.a.html", &vapi(&body), &mut Budget::new(1_000))
            .as_deref(),
        Ok("<b>&\"'"),
        "no escaping by the field's name"
    );
}

/// A rule costs no more than its budget, in time or in memory.
#[test]
fn hostile_templates_end_at_the_limits() {
    let body = json!({"message": {"list": vec![0; 400], "text": "x".repeat(60_000)}});
    for template in [
        "{% for a in message.list %}{% for b in message.list %}{% for c in message.list %}.{% endfor %}{% endfor \
        %}{% endfor %}",
        "{{ '-' * 10000000000 }}",
        "{{ '-' * 90000000 }}",
        "{% set a = message.text %}{{ (a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a ~ a) * 1000 }}",
        "{{ message.text }}{{ message.text }}",
    ] {
        let error = text(template, &body).expect_err(template);
        assert_eq!(error.cause, Cause::TemplateLimit, "{template}: {}", error.detail);
        assert!(!error.detail.contains("xxx"), "{}", error.detail);
    }
    for template in [
        "{{ range(9) }}",
        "{{ debug() }}",
        "{{ 'a' | indent(9) }}",
        "{{ '%s' | format(1) }}",
        "{% include 'x' %}",
        "{{ self.x() }}",
        "{% macro a() %}{% endmacro %}",
    ] {
        let result = Compiled::new(&spec(None, json!({ "body": template })));
        let failed = result.map_or(true, |rule| {
            rule.text("parameters.body", &vapi(&body), &mut Budget::new(1_000))
                .is_err()
        });
        assert!(failed, "{template}");
    }
    let deep = format!("{}1{}", "(".repeat(20_000), ")".repeat(20_000));
    assert!(Compiled::new(&spec(Some(&deep), json!({}))).is_err());
    assert!(Compiled::new(&spec(Some(&deep[..4_000]), json!({}))).is_err());
}

/// Postgres stores no text with a NUL, and no provider takes one.
#[test]
fn a_nul_is_refused_when_it_is_rendered_and_on_save() {
    let body = json!({"message": {"name": "a\u{0}b"}});
    let error = text("to {{ message.name }}", &body).expect_err("a NUL");
    assert_eq!(error.cause, Cause::TemplateFailed);
    assert_eq!(
        error.detail,
        "parameters.body: the text that came out contains a NUL character"
    );
    assert_eq!(text("{{ message.name | length }}", &body).as_deref(), Ok("3"));
    let problems = Compiled::new(&spec(None, json!({"destination": "a\u{0}b"}))).expect_err("a literal");
    assert_eq!(problems[0].field, "parameters.destination");
    let named = RuleSpec {
        name: "a\u{0}b".into(),
        ..spec(None, json!({"destination": "x"}))
    };
    assert_eq!(check(&named).expect_err("a name")[0].field, "name");
}

#[test]
fn one_budget_serves_all_rules_of_an_event() {
    let body = json!({"message": {"list": vec![0; 100]}});
    let context = vapi(&body);
    let mut budget = Budget::new(5_000);
    let template = "{% for a in message.list %}{{ a }}{% endfor %}";
    let results: Vec<_> = (0..40).map(|_| render(template, &context, &mut budget)).collect();
    assert!(results[0].is_ok() && results[1].is_ok());
    assert_eq!(
        results[39].as_ref().map_err(|error| error.cause),
        Err(Cause::TemplateLimit)
    );
    let mut budget = Budget::new(100_000);
    for _ in 0..10 {
        assert!(render("{{ message.absent }}", &context, &mut budget).is_err());
    }
    assert!(
        render(template, &context, &mut budget).is_ok(),
        "failures of others leave enough"
    );
}

#[test]
fn failures_name_the_field_and_the_place_and_repeat_nothing_of_the_event() {
    let body = json!({"message": {"customer": {"number": "+15550001111"}, "name": "Canary"}});
    for (template, place) in [
        ("{{ message.customer.email }}", "message.customer.email"),
        ("{{ message.name + 1 }}", "message.name + 1"),
        ("{{ message.customer.number | int }}{{ message.name | int }}", "int"),
        ("{{ message.name() }}", "name()"),
        ("{{ message.customer.number.x.y }}", "message.customer"),
    ] {
        let error = text(template, &body).expect_err(template);
        assert_eq!(error.cause, Cause::TemplateFailed);
        assert!(
            error.detail.starts_with("parameters.body: ") && error.detail.contains(place),
            "{template}: {}",
            error.detail
        );
        assert!(
            !error.detail.contains("1555") && !error.detail.contains("Canary"),
            "{}",
            error.detail
        );
    }
}

#[test]
fn unknown_names_and_broken_texts_are_found_on_save_with_their_fields() {
    let problems = Compiled::new(&spec(
        Some("mesage.x == 1"),
        json!({"to": "{{ foo }}", "body": {"deep": ["{% if %}", "fine {{ body.x }}"]}, "n": 4}),
    ))
    .expect_err("three problems");
    let fields: Vec<&str> = problems.iter().map(|problem| problem.field.as_str()).collect();
    assert_eq!(fields, ["when", "parameters.body.deep[0]", "parameters.to"]);
    assert!(problems[0].problem.contains("`mesage`"), "{}", problems[0].problem);
    let long = "x".repeat(TEMPLATE_BYTES_MAX + 1);
    assert!(Compiled::new(&spec(None, json!({ "body": &long[1..] }))).is_ok());
    assert_eq!(
        Compiled::new(&spec(None, json!({ "body": long }))).expect_err("too long")[0].field,
        "parameters.body"
    );
}

#[test]
fn known_places_of_secrets_are_masked_and_own_words_are_not() {
    let body = json!({"message": {
        "assistant": {"name": "A", "server": {"url": "u", "secret": "s1"}, "credentials": [{"apiKey": "s2"}], "model": {"tools": [{"type": "function", "server": {"headers": {"x": "s3"}}}], "url": "u", "headers": {"x": "s7"}}},
        "phoneNumber": {"number": "+1", "twilioAccountSid": "AC1", "twilioAuthToken": "s4"},
        "call": {"assistant": {"serverUrlSecret": "s5"}, "transport": {"callToken": "s8", "headers": {"x": "seen"}}, "squad": {"members": [{"assistant": {"server": {"secret": "s6"}}}]}},
        "toolCalls": [{"function": {"name": "book", "arguments": {"server": "Anna", "secret": "none"}}}],
    }});
    let shown = text("{{ body | tojson }}", &body).expect("renders");
    for secret in ["s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "AC1"] {
        assert!(!shown.contains(&format!("\"{secret}\"")), "{secret} in {shown}");
    }
    assert!(
        shown.contains("\"server\":\"Anna\"") && shown.contains("\"seen\"") && shown.contains("\"number\":\"+1\""),
        "{shown}"
    );
}

#[test]
fn an_unreadable_body_is_neither_posted_nor_seen_by_a_template() {
    let context = context(Source::Vapi, "application/json", "", br#"{"message":{"secret":"S"}"#);
    let run = |when: Option<&str>, parameters: Value| {
        let rule = Compiled::new(&spec(when, parameters)).expect("compiles");
        let mut budget = Budget::new(100_000);
        rule.matches(&context, &mut budget)?;
        rule.render(&context, &mut budget)
    };
    for (when, parameters, place) in [
        (None, json!({"destination": "crm"}), ""),
        (
            Some("message.a == 1"),
            json!({"destination": "crm", "body": {}}),
            "when: ",
        ),
        (
            None,
            json!({"destination": "crm", "body": "{{ body }}"}),
            "parameters.body: ",
        ),
    ] {
        let error = run(when, parameters).expect_err("nothing is sent");
        assert_eq!(error.cause, Cause::UnreadableBody);
        assert_eq!(error.detail, format!("{place}{UnreadableBody}"));
    }
    let rendered = run(
        None,
        json!({"destination": "crm", "body": {"call": "{{ event.subject }}"}}),
    )
    .expect("a request");
    assert_eq!(rendered.request.0["payload"]["data"], json!({"call": "call-1"}));
}

/// Senders write `null` for what they do not have: no word for it reaches a person.
#[test]
fn null_is_an_empty_text_and_never_a_word() {
    let body = json!({"message": {
        "name": null, "list": ["a", null], "none": [null], "empty": [], "object": {"a": null}, "n": 0, "no": false,
    }});
    for (template, expected) in [
        ("<{{ message.name }}>", "<>"),
        ("{{ message.name[:20] }}", ""),
        (
            "{{ message.name | upper }}{{ message.name | lower }}{{ message.name | title }}",
            "",
        ),
        (
            "{{ message.name | trim }}{{ message.name | string }}{{ message.name | capitalize }}",
            "",
        ),
        (
            "{{ message.name | safe }}{{ message.name | e }}{{ message.name | escape }}",
            "",
        ),
        ("{{ message.list | join('-') }}|{{ message.none | join('-') }}", "a-|"),
        ("{{ message.name | urlencode }}", ""),
        ("{{ message.name | default('you', true) }}", "you"),
        ("{{ message.name or 'you' }}", "you"),
        (
            "{% if message.name is none %}1{% endif %}{% if message.name == none %}2{% endif %}",
            "12",
        ),
        ("{{ message.empty }}", ""),
        ("{{ message.list }} {{ message.object }}", "[\"a\",null] {\"a\":null}"),
        ("{{ message.name | tojson }} {{ message.empty | tojson }}", "null []"),
        ("{{ message.n }} {{ message.no }}", "0 False"),
    ] {
        assert_eq!(text(template, &body).as_deref(), Ok(expected), "{template}");
    }
    for template in [
        "{{ message.absent | upper }}",
        "{{ message.absent | safe }}",
        "{{ message.absent }}",
    ] {
        let error = text(template, &body).expect_err(template);
        assert_eq!(error.cause, Cause::TemplateFailed, "{template}");
    }
}

/// A caller's name is markup in the HTML of an e-mail, and text everywhere else.
#[test]
fn values_are_escaped_in_html_alone_unless_the_rule_calls_them_safe() {
    let name = "<a href=\"https://phish.example\">O'Neil & Sons</a>";
    let context = vapi(&json!({"message": {"name": name, "tags": ["<b>"]}}));
    let mut mail = spec(
        None,
        json!({
            "to": "front@example.com", "subject": "{{ message.name | length }}",
            "text": "{{ message.name }}",
            "html": "<p>{{ message.name }} {{ message.name | upper }} {{ message.name ~ '!' }} {{ message.tags }}</p>",
        }),
    );
    mail.action = ActionKind::ResendSendEmail;
    let run = |spec: &RuleSpec| {
        let rule = Compiled::new(spec).expect("compiles");
        rule.render(&context, &mut Budget::new(100_000))
            .expect("renders")
            .request
            .0
    };
    let sent = run(&mail);
    assert_eq!(sent["text"], name);
    let html = sent["html"].as_str().expect("a text");
    assert!(html.starts_with("<p>&lt;a href=") && html.ends_with("</p>"), "{html}");
    for markup in ["<a", "<A", "<b>", "</a>", "</A>"] {
        assert!(!html.contains(markup), "{markup} in {html}");
    }
    mail.parameters
        .insert("html".to_owned(), json!("<p>{{ message.name | safe }}</p>"));
    assert_eq!(run(&mail)["html"], format!("<p>{name}</p>"));
    let post = spec(
        None,
        json!({"destination": "crm", "body": {"html": "{{ message.name }}"}}),
    );
    assert_eq!(
        run(&post)["payload"]["data"]["html"],
        name,
        "the body of a post is no HTML"
    );
}

/// Every value of a form is a text, and senders write `null`. The engine alone would order both
/// against a number by their kind, so that the rule runs always or never.
#[test]
fn a_text_is_compared_with_a_number_as_a_number_or_fails_by_name() {
    let form = context(
        Source::Twilio,
        "application/x-www-form-urlencoded",
        "n=5",
        b"NumMedia=0&CallDuration=5&Price=-0.0075&Digits=007&Body=hello&Big=10&Small=9",
    );
    let run = |when: &str, context: &Context| {
        let rule = Compiled::new(&spec(Some(when), json!({}))).expect(when);
        rule.matches(context, &mut Budget::new(100_000))
    };
    for (when, expected) in [
        ("params.NumMedia > 0", false),
        ("params.NumMedia>=0", true),
        ("params.NumMedia == 0", true),
        ("params.NumMedia != 0", false),
        ("params.NumMedia == '0'", true),
        ("params.CallDuration > 60", false),
        ("60 > params.CallDuration", true),
        ("1 < params.CallDuration <= 5 and not params.NumMedia > 0", true),
        ("params.Price < 0", true),
        ("params.Digits == 7 and params.Digits != '7'", true),
        ("params.Body == 5", false),
        ("params.Big > params.Small", true),
        ("params.Body > 'a' and 'b' < 'c'", true),
        ("query.n < 6 or params.Body > 1", true),
        ("(params.CallDuration | int) + 1 > 5", true),
        ("params.Body | length > 4", true),
        ("[params.NumMedia > 0, 2 > 1][1]", true),
        ("{'a': 2 > 1}['a']", true),
        ("(1 if params.NumMedia > 0 else 2) == 2", true),
        ("'a' in params.Body and params.Body == 'hello'", false),
        ("params.Body is string and 1 < 2", true),
        ("1 < 2 < 2", false),
        ("'5' ~ 1 == '51' and 3 - 1 > 1", true),
    ] {
        assert_eq!(run(when, &form), Ok(expected), "{when}");
    }
    for (when, blamed) in [
        (
            "params.Body > 60",
            "when: invalid operation, at `params.Body > 60`: a number can",
        ),
        (
            "1 < 2 and  params.Body  <1",
            "when: invalid operation, at `params.Body  <1`: a number can",
        ),
        ("params.Absent > 1", "when: undefined value, at `params.Absent > 1`"),
    ] {
        let error = run(when, &form).expect_err(when);
        assert_eq!(error.cause, Cause::TemplateFailed);
        assert!(error.detail.starts_with(blamed), "{}", error.detail);
    }
    let json = vapi(&json!({"message": {"n": null, "list": [1, 2], "cost": 0.5, "flag": true}}));
    for (when, expected) in [
        ("message.n == none", true),
        ("message.n == 5", false),
        ("message.n != 5", true),
        ("message.cost > 0.1 and message.flag > 0", true),
        ("message.list[1] > message.list[0]", true),
        ("[3] > [2]", true),
    ] {
        assert_eq!(run(when, &json), Ok(expected), "{when}");
    }
    for when in ["message.n < 5", "message.n > 5", "message.list > 1", "message.n < none"] {
        let error = run(when, &json).expect_err(when);
        assert!(error.detail.ends_with(operators::NO_ORDER), "{}", error.detail);
    }
}

#[test]
fn operators_are_replaced_in_templates_and_nothing_else_is() {
    let body = json!({"message": {"n": null, "a": 1, "b": "x"}});
    for (template, expected) in [
        ("{{ 'a' ~ message.n ~ 'b' }}", "ab"),
        ("{{ message.a + 1 ~ message.b }}", ""),
        ("{{ message.b ~ message.a * 2 }}", "x2"),
        ("{{ ('<' ~ message.n) ~ '>' }}", "<>"),
        ("{% if message.a < 2 %}yes{% elif message.a > 5 %}no{% endif %}", "yes"),
        ("{% for n in [1, 2, 3] if n > 1 %}{{ n ~ ',' }}{% endfor %}", "2,3,"),
        ("{% set big = message.a > 0 %}{{ big }}", "True"),
        ("{%- if message.a<2 -%} yes {%- endif -%}", "yes"),
        (
            "a < b {# {{ 1 < 'x' }} #}{% raw %}{{ 1 < 'x' }}{% endraw %}",
            "a < b {{ 1 < 'x' }}",
        ),
        ("{{ '}} 1 < 2' }}", "}} 1 < 2"),
        ("{{ {'a': {'b': 2 > 1}}['a']['b'] }}", "True"),
        ("{{ \"it's < \" ~ 'é' }}{{ 2 > 1 }}", "it's < éTrue"),
    ] {
        if expected.is_empty() {
            assert!(text(template, &body).is_err(), "{template}");
        } else {
            assert_eq!(text(template, &body).as_deref(), Ok(expected), "{template}");
        }
    }
}

#[test]
fn a_rule_sees_whether_its_organisation_was_open() {
    let hours = json!({ "tuesday": [{ "from": "23:00", "until": "24:00" }] });
    let settings = Arc::new(OrgSettings {
        time_zone: Zone::find("Europe/Berlin"),
        opening_hours: OpeningHours::read("", &hours).ok(),
        ..OrgSettings::default()
    });
    let event_type = EventType::new(Source::Vapi, "end-of-call-report");
    let context = |seconds: i64, settings: Option<&Arc<OrgSettings>>| {
        Context::new(&Sample {
            id: EventId::generate(),
            source: Source::Vapi,
            event_type: &event_type,
            subject: "call-1",
            time: Timestamp::from_seconds(seconds),
            // It came hours later: what counts is the time of the event.
            received_at: Timestamp::from_seconds(seconds + 36_000),
            endpoint: None,
            content_type: "application/json",
            query: "",
            headers: &[],
            body: b"{}",
            settings,
        })
    };
    // A Tuesday, 23:13:20 in Berlin, and an hour later.
    let (open, closed) = (1_700_000_000, 1_700_003_600);
    let said = |template: &str, seconds: i64, settings: Option<&Arc<OrgSettings>>| {
        render(template, &context(seconds, settings), &mut Budget::new(100_000))
    };
    let asked = "{% if organisation.is_open %}open{% else %}closed{% endif %} {{ organisation.time_zone }}";
    assert_eq!(said(asked, open, Some(&settings)).as_deref(), Ok("open Europe/Berlin"));
    assert_eq!(
        said(asked, closed, Some(&settings)).as_deref(),
        Ok("closed Europe/Berlin")
    );
    // Without opening hours it is null, and neither open nor closed.
    let unset = "{% if organisation.is_open is none %}none{% endif %} {{ organisation }}";
    for settings in [None, Some(&Arc::default())] {
        assert_eq!(
            said(unset, open, settings).as_deref(),
            Ok(r#"none {"time_zone":"UTC","is_open":null}"#)
        );
    }
    let error = said("{{ organisation.secret }}", open, Some(&settings)).expect_err("no such member");
    assert_eq!(error.cause, Cause::TemplateFailed);
    let when = |when: &str| Compiled::new(&spec(Some(when), json!({}))).expect("compiles");
    for (expression, seconds, holds) in [
        ("organisation.is_open", open, true),
        ("not organisation.is_open", open, false),
        ("organisation.is_open == false", closed, true),
    ] {
        let rule = when(expression);
        assert!(rule.asks_organisation());
        let matched = rule.matches(&context(seconds, Some(&settings)), &mut Budget::new(100_000));
        assert_eq!(matched, Ok(holds), "{expression}");
    }
    assert!(!when("event.type == 'x'").asks_organisation());
}

#[test]
fn only_a_text_message_may_ignore_quiet_hours() {
    let text = RuleSpec {
        action: ActionKind::TwilioSendSms,
        ignores_quiet_hours: true,
        ..spec(None, json!({ "to": "+12025550199", "body": "Hello" }))
    };
    assert_eq!(check(&text), Ok(()));
    assert!(!text.keeps_quiet_hours());
    let post = RuleSpec {
        ignores_quiet_hours: true,
        ..spec(None, json!({ "destination": "crm" }))
    };
    let problems = check(&post).expect_err("it waits for nothing");
    assert_eq!(problems[0].field, "ignores_quiet_hours");
    // Left out where it says nothing, so that the release before this one reads the rule.
    let kept = serde_json::to_value(spec(None, json!({}))).expect("JSON");
    assert!(kept.get("ignores_quiet_hours").is_none(), "{kept}");
}
