//! The life of a credential at each provider, through the admin API and against the stand-ins. It
//! is tested, connected, verified, refreshed, refused, disconnected and connected again. No other
//! organisation ever sees it.

mod accounts;
mod assistants;
mod at_rest;
mod attempts;
mod audit;
mod consent;
mod forms;
mod keys;
mod killed;
mod limited;
mod reconcile;
mod refresh;
mod rotation;
mod use_of_them;

pub(crate) use crate::{
    admin::{Answer, proof::without_warnings},
    support::app::{TestApp, sandbox::CALLBACK},
};
use hookswitch::{admin::Role, domain::OrgId};
use reqwest::Method;
use serde_json::Value;

/// The answer of `authorize` to a browser: the URL to go to, and a cookie.
pub(crate) struct Begun {
    pub(crate) url: String,
    pub(crate) cookie: String,
}

pub(crate) async fn begin(app: &TestApp, org: OrgId, query: &str) -> Begun {
    let answer = app
        .get(org, &format!("/api/integrations/google_calendar/authorize{query}"))
        .await
        .expect(200);
    let cookie = answer.headers["set-cookie"]
        .to_str()
        .unwrap()
        .split(';')
        .next()
        .unwrap()
        .to_owned();
    Begun {
        url: answer.json()["url"].as_str().unwrap().to_owned(),
        cookie,
    }
}

/// The person consents at Google's page; returns the path and query that Google sends them back
/// with.
pub(crate) async fn consent(url: &str) -> String {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .unwrap();
    let answer = client.get(url).send().await.unwrap();
    assert_eq!(answer.status(), 302, "{}", answer.text().await.unwrap());
    let to = answer.headers()["location"].to_str().unwrap().to_owned();
    to.strip_prefix("https://hooks.example.com")
        .unwrap_or_else(|| panic!("Google sent the person to {to}"))
        .to_owned()
}

/// Comes back with a cookie and no token, as a browser does.
pub(crate) async fn come_back(app: &TestApp, path: &str, cookie: Option<&str>) -> Answer {
    let request = app.request(Method::GET, path);
    TestApp::send(match cookie {
        Some(cookie) => request.header("cookie", cookie),
        None => request,
    })
    .await
}

/// The whole way.
pub(crate) async fn connect_google(app: &TestApp, org: OrgId, account: &str) -> Value {
    let begun = begin(app, org, "").await;
    let back = consent(&format!("{}&login_hint={account}", begun.url)).await;
    app.call_as(org, Role::Owner, Method::GET, &back, None)
        .await
        .expect(200)
        .json()
}
