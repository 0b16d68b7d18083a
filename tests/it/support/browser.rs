//! A real headless Chromium, by the W3C WebDriver protocol over the HTTP client that tests have. A
//! crate for it costs half a minute of build time on two cores, for the twelve calls below.
//!
//! One browser at a time: each takes more of the machine than any other test.

use super::client;
use serde_json::{Value, json};
use std::{
    net::TcpListener,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, SemaphorePermit};

/// How long the page may take to become so. Far above what it takes, for busy machines.
const PATIENCE: Duration = Duration::from_mins(1);
const INSTALL: &str = "the tests of the dashboard need Chromium and its driver: run scripts/browser, or install them \
    (Debian: apt-get install chromium chromium-driver)";
/// The key under which WebDriver names an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";

/// The keys of WebDriver.
pub const TAB: &str = "\u{E004}";
pub const ENTER: &str = "\u{E007}";

static TURN: Semaphore = Semaphore::const_new(1);

/// A driver with its browser. Both end with it.
pub struct Driver {
    process: Child,
    base: String,
    folder: PathBuf,
    _turn: SemaphorePermit<'static>,
}

/// One window with cookies of its own.
pub struct Browser<'a> {
    driver: &'a Driver,
    session: String,
    /// Before every path of the dashboard.
    pub base: String,
}

/// Size and colours of a window.
#[derive(Clone, Copy)]
pub struct Look {
    pub width: u32,
    pub height: u32,
    pub is_dark: bool,
}

pub const DESK: Look = Look {
    width: 1440,
    height: 900,
    is_dark: false,
};
pub const PHONE: Look = Look {
    width: 360,
    height: 740,
    is_dark: true,
};

impl Driver {
    pub async fn start() -> Self {
        let turn = TURN.acquire().await.expect("never closed");
        let port = TcpListener::bind("127.0.0.1:0").and_then(|socket| socket.local_addr());
        let port = port.expect("a free port").port();
        let process = Command::new("chromedriver")
            .arg(format!("--port={port}"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("chromedriver does not start ({error}); {INSTALL}"));
        let driver = Self {
            process,
            base: format!("http://127.0.0.1:{port}"),
            folder: std::env::temp_dir().join(format!("hookswitch-browser-{}", uuid::Uuid::now_v7())),
            _turn: turn,
        };
        let url = format!("{}/status", driver.base);
        super::until("chromedriver", || async { client().get(&url).send().await.ok() }).await;
        driver
    }

    /// A new window for the dashboard of this admin API.
    pub async fn open(&self, admin: &str, look: Look) -> Browser<'_> {
        let mut arguments = vec![
            "--headless=new".to_owned(),
            // Tests run as root in containers, where Chromium's own sandbox cannot be made.
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--lang=en".to_owned(),
            format!("--window-size={},{}", look.width, look.height),
            format!(
                "--user-data-dir={}",
                self.folder.join(uuid::Uuid::now_v7().to_string()).display()
            ),
        ];
        if look.is_dark {
            arguments.push("--blink-settings=preferredColorScheme=0".to_owned());
        }
        // The certificate of a proxy in front is the test's own.
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": arguments},
            "goog:loggingPrefs": {"browser": "ALL"},
        }}});
        let made = self.ask("/session", &wanted).await.unwrap_or_else(|problem| {
            panic!("no browser: {problem}; {INSTALL}");
        });
        let browser = Browser {
            driver: self,
            session: made["sessionId"].as_str().expect("a session").to_owned(),
            base: admin.to_owned(),
        };
        // A window of a browser has a least width; a page of 360 pixels is asked for by itself.
        let size = json!({"width": look.width, "height": look.height, "deviceScaleFactor": 1, "mobile": false});
        browser.devtools("Emulation.setDeviceMetricsOverride", &size).await;
        browser
    }

    async fn ask(&self, path: &str, body: &Value) -> Result<Value, String> {
        let request = client()
            .post(format!("{}{path}", self.base))
            .json(body)
            .timeout(PATIENCE);
        answer(request.send().await.map_err(|error| error.to_string())?).await
    }
}

async fn answer(response: reqwest::Response) -> Result<Value, String> {
    let mut answer: Value = response.json().await.map_err(|error| error.to_string())?;
    let value = answer["value"].take();
    match value["error"].as_str() {
        Some(error) => Err(format!("{error}: {}", value["message"].as_str().unwrap_or_default())),
        None => Ok(value),
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        // The browser is no child of ours: its processes are known by the folder that is theirs.
        let folder = self.folder.display().to_string();
        for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
            let Some(id) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            if String::from_utf8_lossy(&line).contains(&folder)
                && let Some(id) = rustix::process::Pid::from_raw(id)
            {
                let _ = rustix::process::kill_process(id, rustix::process::Signal::KILL);
            }
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Browser<'_> {
    async fn ask(&self, path: &str, body: &Value) -> Result<Value, String> {
        self.driver.ask(&format!("/session/{}{path}", self.session), body).await
    }

    /// A command of Chromium's own protocol.
    pub async fn devtools(&self, command: &str, parameters: &Value) -> Value {
        let body = json!({"cmd": command, "params": parameters});
        let done = self.ask("/goog/cdp/execute", &body).await;
        done.unwrap_or_else(|problem| panic!("{command}: {problem}"))
    }

    /// Opens a path of the dashboard.
    pub async fn go(&self, path: &str) {
        let body = json!({"url": format!("{}{path}", self.base)});
        self.ask("/url", &body)
            .await
            .unwrap_or_else(|problem| panic!("{path}: {problem}"));
    }

    /// The value of a script; a promise is awaited.
    pub async fn run(&self, script: &str, arguments: Value) -> Value {
        let body = json!({"script": script, "args": arguments});
        let ran = self.ask("/execute/sync", &body).await;
        ran.unwrap_or_else(|problem| panic!("{script:.200}: {problem}"))
    }

    /// Waits until an expression of the page is true.
    pub async fn until(&self, expression: &str) {
        let script = format!("return Boolean({expression})");
        let end = Instant::now() + PATIENCE;
        let body = json!({"script": script, "args": []});
        while self.ask("/execute/sync", &body).await != Ok(Value::Bool(true)) {
            let is_late = Instant::now() > end;
            assert!(!is_late, "waited {PATIENCE:?} for {expression}\n{}", self.seen().await);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Presses Tab until it is true of the focus.
    pub async fn tab_to(&self, expression: &str) {
        for _ in 0..60 {
            if self.run(&format!("return Boolean({expression})"), json!([])).await == true {
                return;
            }
            self.press(TAB).await;
        }
        self.until(expression).await;
    }

    /// Waits for an element, and returns its id.
    pub async fn find(&self, selector: &str) -> String {
        let end = Instant::now() + PATIENCE;
        let body = json!({"using": "css selector", "value": selector});
        loop {
            match self.ask("/element", &body).await {
                Ok(found) => return found[ELEMENT].as_str().expect("an element").to_owned(),
                Err(problem) if Instant::now() > end => panic!("{problem}\n{}", self.seen().await),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    async fn act(&self, selector: &str, what: &str, body: &Value) {
        let end = Instant::now() + PATIENCE;
        loop {
            let element = self.find(selector).await;
            match self.ask(&format!("/element/{element}/{what}"), body).await {
                Ok(_) => return,
                // Drawn anew between the two, or still behind a dialog that closes.
                Err(problem) if Instant::now() > end => panic!("{what} {selector}: {problem}\n{}", self.seen().await),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub async fn click(&self, selector: &str) {
        self.act(selector, "click", &json!({})).await;
    }

    /// Types into a field, behind what stands in it.
    pub async fn write(&self, selector: &str, text: &str) {
        self.act(selector, "value", &json!({"text": text})).await;
    }

    /// Empties a field and types into it.
    pub async fn rewrite(&self, selector: &str, text: &str) {
        self.act(selector, "clear", &json!({})).await;
        self.write(selector, text).await;
    }

    /// Presses keys, wherever the focus is.
    pub async fn press(&self, keys: &str) {
        let strokes: Vec<_> = keys
            .chars()
            .flat_map(|key| {
                let key = key.to_string();
                [
                    json!({"type": "keyDown", "value": key}),
                    json!({"type": "keyUp", "value": key}),
                ]
            })
            .collect();
        let body = json!({"actions": [{"type": "key", "id": "keys", "actions": strokes}]});
        self.ask("/actions", &body).await.expect("keys");
    }

    /// The text that an element shows.
    pub async fn text(&self, selector: &str) -> String {
        self.find(selector).await;
        let text = self.run(
            "return document.querySelector(arguments[0])?.innerText ?? ''",
            json!([selector]),
        );
        text.await.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an element shows a text.
    pub async fn shows(&self, selector: &str, text: &str) {
        let (selector, text) = (Value::from(selector), Value::from(text));
        self.until(&format!(
            "document.querySelector({selector})?.innerText.includes({text})"
        ))
        .await;
    }

    pub async fn path(&self) -> String {
        let path = self.run("return location.pathname + location.search", json!([])).await;
        path.as_str().expect("a path").to_owned()
    }

    /// Signs in with a token, through the form that people see.
    pub async fn sign_in(&self, token: &str, path: &str) {
        self.go(path).await;
        self.write("#token", token).await;
        self.click("form.sign-in button").await;
        self.until("document.querySelector('#content').dataset.state === 'ready'")
            .await;
    }

    /// Opens another tab over this one, which is hidden then. Returns this tab's name.
    pub async fn cover(&self) -> String {
        let path = format!("{}/session/{}/window", self.driver.base, self.session);
        let own = answer(client().get(path).send().await.expect("the driver answers")).await;
        let made = self.ask("/window/new", &json!({"type": "tab"})).await.expect("a tab");
        self.turn_to(made["handle"].as_str().expect("a name")).await;
        own.expect("a name").as_str().expect("a text").to_owned()
    }

    /// Shows a covered tab again.
    pub async fn uncover(&self, tab: &str) {
        self.turn_to(tab).await;
    }

    async fn turn_to(&self, tab: &str) {
        let turned = self.ask("/window", &json!({"handle": tab})).await;
        turned.unwrap_or_else(|problem| panic!("{tab}: {problem}"));
    }

    /// The address, the text and the faults of the page: what a failed test shows.
    async fn seen(&self) -> String {
        let script =
            "return [location.href, JSON.stringify(window.hookswitchFaults), document.body.innerText].join('\\n')";
        let body = json!({"script": script, "args": []});
        match self.ask("/execute/sync", &body).await {
            Ok(seen) => seen.as_str().unwrap_or_default().to_owned(),
            Err(problem) => problem,
        }
    }

    /// Nothing went wrong in the page: no exception, no report of the policy, and no error in the
    /// console but refusals of the API that the page shows.
    pub async fn is_faultless(&self) {
        let faults = self.run("return window.hookswitchFaults", json!([])).await;
        assert_eq!(faults, json!([]), "{}", self.seen().await);
        let log = self
            .ask("/se/log", &json!({"type": "browser"}))
            .await
            .expect("the console");
        let is_fault = |line: &&Value| {
            let text = line["message"].as_str().unwrap_or_default();
            let is_of_api = text.contains("/api/") || text.contains("/operator/");
            line["level"] == "SEVERE" && !(is_of_api && text.contains("Failed to load resource"))
        };
        let faults: Vec<_> = log.as_array().into_iter().flatten().filter(is_fault).collect();
        assert!(faults.is_empty(), "{faults:#?}");
    }

    /// A picture of the window, as PNG in base64.
    pub async fn picture(&self) -> String {
        let request = client().get(format!("{}/session/{}/screenshot", self.driver.base, self.session));
        let taken = answer(request.send().await.expect("the driver answers"))
            .await
            .expect("a picture");
        taken.as_str().expect("base64").to_owned()
    }
}
