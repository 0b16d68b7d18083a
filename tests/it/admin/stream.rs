//! The stream that says which lists changed.

use super::{TestApp, isolation::plan, rule};
use crate::support::{
    client,
    dev::{Dev, Directory, port_base},
    until,
};
use hookswitch::{
    admin::Role,
    config::Settings,
    domain::{ActionState, OrgId},
};
use reqwest::{Method, RequestBuilder, Response};
use serde_json::Value;
use std::time::Duration;

const STREAM: &str = "/api/stream";
/// Far above a heartbeat, for busy machines.
const PATIENCE: Duration = Duration::from_mins(1);

/// An open stream, read message by message.
pub(crate) struct Reader {
    response: Response,
    rest: String,
    /// All that it said.
    pub said: String,
}

impl Reader {
    pub async fn open(request: RequestBuilder) -> Self {
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status(), 200);
        Self {
            response,
            rest: String::new(),
            said: String::new(),
        }
    }

    /// The text of the next message or comment. `None` at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.rest.find("\n\n") {
                let message = self.rest[..end].to_owned();
                self.rest.drain(..end + 2);
                return Some(message);
            }
            let read = tokio::time::timeout(PATIENCE, self.response.chunk()).await;
            let chunk = read.expect("it says something").expect("a sound stream")?;
            let text = String::from_utf8(chunk.to_vec()).expect("text");
            self.said.push_str(&text);
            self.rest.push_str(&text);
        }
    }

    /// The next event: its name and its data. Comments are passed over.
    pub async fn event(&mut self) -> Option<(String, Value)> {
        loop {
            let message = self.next().await?;
            if let Some((name, data)) = message.split_once("\ndata: ") {
                let name = name.strip_prefix("event: ").expect("a name");
                return Some((name.to_owned(), serde_json::from_str(data).expect("JSON")));
            }
        }
    }

    /// The lists of the next change.
    async fn lists(&mut self) -> Vec<String> {
        let (name, data) = self.event().await.expect("a change");
        assert_eq!(name, "changed", "{data}");
        serde_json::from_value(data["lists"].clone()).expect("names")
    }

    /// Reads until all of these lists were said. No other one was said meanwhile.
    async fn says(&mut self, expected: &[&str]) {
        let mut missing: Vec<&str> = expected.to_vec();
        while !missing.is_empty() {
            let lists = self.lists().await;
            assert!(lists.iter().all(|list| expected.contains(&list.as_str())), "{lists:?}");
            missing.retain(|one| !lists.iter().any(|list| list == one));
        }
    }

    /// The reason for which it ends. Changes before it are passed over.
    pub async fn ends(&mut self) -> String {
        loop {
            let (name, data) = self.event().await.expect("it says why it ends");
            if name == "end" {
                assert!(self.next().await.is_none(), "nothing comes after the end");
                return data["reason"].as_str().expect("a reason").to_owned();
            }
        }
    }
}

/// The first message names all lists: nobody knows how old the caller's are.
const ALL: [&str; 6] = ["events", "actions", "integrations", "jobs", "rejections", "audit"];

async fn open(app: &TestApp, org: OrgId) -> Reader {
    let mut reader = Reader::open(
        app.request(Method::GET, STREAM)
            .bearer_auth(app.token(org, Role::Viewer)),
    )
    .await;
    assert_eq!(reader.lists().await, ALL);
    reader
}

fn limited(per_organisation: usize, all: usize) -> Settings {
    let mut settings = Settings::default();
    settings.admin.admin_streams_per_organisation_max = per_organisation;
    settings.admin.admin_streams_max = all;
    settings
}

#[tokio::test]
async fn a_change_is_reported_by_the_names_of_its_lists_and_nothing_of_its_content() {
    let app = TestApp::start().await;
    let request = app.request(Method::GET, STREAM).header("accept-encoding", "gzip");
    let mut reader = Reader::open(request.bearer_auth(app.token(app.a, Role::Viewer))).await;
    for (name, value) in [
        ("content-type", "text/event-stream"),
        ("cache-control", "no-store"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(reader.response.headers()[name], value);
    }
    for name in ["content-encoding", "content-length", "etag"] {
        assert!(!reader.response.headers().contains_key(name), "{name}");
    }
    assert_eq!(reader.next().await.as_deref(), Some("retry: 3000"));
    assert_eq!(reader.lists().await, ALL);
    // Not through this API: by a worker, of this process or another one.
    let (event, action) = plan(&app, app.a, ActionState::Pending).await;
    reader.says(&["events", "actions"]).await;
    app.post(app.a, "/api/rules", &rule("one")).await.expect(201);
    reader.says(&["audit"]).await;
    app.clock.advance(Duration::from_secs(1));
    app.call(app.a, Method::POST, &format!("/api/actions/{action}/cancel"), None)
        .await
        .expect(200);
    reader.says(&["actions", "audit"]).await;
    for id in [event.to_string(), action.to_string(), app.a.to_string()] {
        assert!(!reader.said.contains(&id), "{}", reader.said);
    }
    let named = reader.said.lines().filter(|line| line.starts_with("event: "));
    assert!(named.clone().all(|line| line == "event: changed"), "{}", reader.said);
    let data = reader.said.lines().filter_map(|line| line.strip_prefix("data: "));
    for data in data.map(|text| serde_json::from_str::<Value>(text).unwrap()) {
        assert_eq!(data.as_object().unwrap().keys().collect::<Vec<_>>(), ["lists"]);
    }
}

#[tokio::test]
async fn the_stream_of_b_says_nothing_of_what_a_changes() {
    let app = TestApp::start().await;
    let (mut of_a, mut of_b) = (open(&app, app.a).await, open(&app, app.b).await);
    plan(&app, app.a, ActionState::Pending).await;
    of_a.says(&["events", "actions"]).await;
    // B's next look would see all of it, and name more than B's own change.
    app.post(app.b, "/api/rules", &rule("theirs")).await.expect(201);
    of_b.says(&["audit"]).await;
    app.post(app.a, "/api/rules", &rule("one")).await.expect(201);
    of_a.says(&["audit"]).await;
    plan(&app, app.b, ActionState::Dead).await;
    of_b.says(&["events", "actions"]).await;
}

#[tokio::test]
async fn a_stream_is_for_tokens_and_sessions_of_an_organisation_and_never_by_its_address() {
    let app = TestApp::start().await;
    let token = app.token(app.a, Role::Viewer);
    let by_address = app.request(Method::GET, &format!("{STREAM}?token={token}"));
    TestApp::send(by_address).await.expect(401);
    let unknown = app
        .get(app.a, &format!("{STREAM}?access_token={token}"))
        .await
        .expect(400);
    assert_eq!(unknown.code(), "invalid_query");
    app.operator(Method::GET, STREAM, &Value::Null).await.expect(401);
    let session = app.request(Method::POST, "/api/session").bearer_auth(&token);
    let session = TestApp::send(session).await.expect(201);
    let cookie = session.headers["set-cookie"].to_str().unwrap();
    let cookie = cookie.split(';').next().unwrap().to_owned();
    let mut reader = Reader::open(app.request(Method::GET, STREAM).header("cookie", &cookie)).await;
    assert_eq!(reader.lists().await, ALL);
    let csrf = session.json()["csrf_token"].as_str().unwrap().to_owned();
    let signing_out = app.request(Method::DELETE, "/api/session").header("cookie", &cookie);
    TestApp::send(signing_out.header("x-csrf-token", csrf))
        .await
        .expect(204);
    assert_eq!(reader.ends().await, "session_ended");
}

#[tokio::test]
async fn a_stream_ends_with_its_token_and_says_so() {
    let app = TestApp::start().await;
    let mut reader = open(&app, app.a).await;
    // Clocks differ: a token counts for a minute longer.
    app.clock.advance(Duration::from_hours(24));
    plan(&app, app.a, ActionState::Pending).await;
    reader.says(&["events", "actions"]).await;
    app.clock.advance(Duration::from_mins(1));
    assert_eq!(reader.ends().await, "token_ended");
}

#[tokio::test]
async fn streams_are_limited_and_one_that_is_closed_gives_its_place_back_at_once() {
    let app = TestApp::builder().admin().settings(limited(2, 3)).start().await;
    let over = async |org: OrgId| app.get(org, STREAM).await;
    let first = open(&app, app.a).await;
    let mut second = open(&app, app.a).await;
    let refused = over(app.a).await.expect(429);
    assert_eq!(
        (refused.code().as_str(), &refused.headers["retry-after"]),
        ("too_many_streams", &"30".parse().unwrap())
    );
    let _third = open(&app, app.b).await;
    let refused = over(app.b).await.expect(503);
    assert_eq!(
        (refused.code().as_str(), &refused.headers["retry-after"]),
        ("streams_full", &"30".parse().unwrap())
    );
    drop(first);
    let place = until("a place", || async {
        let request = app
            .request(Method::GET, STREAM)
            .bearer_auth(app.token(app.a, Role::Viewer));
        (request.send().await.expect("an answer").status() == 200).then_some(())
    });
    // The streams began together: after the first comment a write would have found out.
    tokio::select! {
        () = place => {}
        comment = second.next() => panic!("there is no place until {comment:?}"),
    }
}

#[tokio::test]
async fn an_installation_without_streams_refuses_each() {
    let app = TestApp::builder().admin().settings(limited(0, 9)).start().await;
    assert_eq!(app.get(app.a, STREAM).await.expect(429).code(), "too_many_streams");
    app.get(app.a, "/api/events").await.expect(200);
}

#[tokio::test]
async fn a_stream_counts_as_one_request_however_long_it_is_read() {
    let mut settings = Settings::default();
    settings.admin.admin_requests_per_minute_max = 9;
    let app = TestApp::builder().admin().settings(settings).start().await;
    let mut reader = open(&app, app.a).await;
    for _ in 0..3 {
        plan(&app, app.a, ActionState::Pending).await;
        reader.says(&["events", "actions"]).await;
    }
    let answer = app.get(app.a, "/api/events").await.expect(200);
    assert_eq!(answer.headers["ratelimit"], "\"organisation\";r=7;t=60");
}

#[tokio::test]
async fn a_silent_stream_lives_on_by_comments() {
    let app = TestApp::start().await;
    let mut reader = open(&app, app.a).await;
    assert_eq!(reader.next().await.as_deref(), Some(": still here"));
}

#[tokio::test]
async fn a_stop_ends_streams_at_once_and_says_so() {
    let directory = Directory::new();
    let mut dev = Dev::start(directory.path(), port_base(), &[]).await;
    let request = client().get(format!("{}{STREAM}", dev.get("admin"))).timeout(PATIENCE);
    let mut reader = Reader::open(request.bearer_auth(dev.get("admin_token"))).await;
    assert_eq!(reader.lists().await, ALL);
    until("the gauge", || async {
        (dev.metric("hookswitch_admin_streams").await > 0.5).then_some(())
    })
    .await;
    dev.process.signal(rustix::process::Signal::TERM);
    assert_eq!(reader.ends().await, "stopping");
    let (status, took) = dev.process.ended();
    assert!(status.success(), "{status}: {}", dev.process.stderr());
    // A stop that waited for it would take all of its time.
    assert!(took < Duration::from_secs(10), "{took:?}");
}
