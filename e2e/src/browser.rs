//! Chromium without a screen, driven over WebDriver.

use std::fmt::Debug;
use std::io::{BufRead as _, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use fantoccini::elements::Element;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use shared::testing::{Api, eventually, skip};
use uuid::Uuid;

/// How long a page may take to show something; generous, because machines that test are busy.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The tabulator, among the keys of WebDriver.
const TAB: &str = "\u{e004}";

/// A browser with one window and a profile of its own. It ends when it is dropped.
pub struct Browser {
    pub client: Client,
    base: String,
    driver: Child,
    /// The process of the browser, which the driver has started.
    process: Option<u64>,
    profile: PathBuf,
}

impl Browser {
    /// `None` where Chromium or its driver is not installed: the test is skipped, or fails with `CI=true`.
    pub async fn start(site: &Api) -> Option<Self> {
        Self::start_with(site, &[]).await
    }

    /// The same, with more arguments of Chromium.
    pub async fn start_with(site: &Api, arguments: &[&str]) -> Option<Self> {
        let Some((driver, port)) = start_driver() else {
            assert!(std::env::var("CI").as_deref() != Ok("true"), "there is no chromedriver");
            skip("in a browser: the package chromium-driver is not installed");
            return None;
        };
        let profile = std::env::temp_dir().join(format!("browser-{}", Uuid::now_v7()));
        let folder = format!("--user-data-dir={}", profile.display());
        // As root, and in containers, Chromium has no sandbox and little shared memory.
        let always = ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", &folder];
        let window = ["--window-size=1280,900"];
        let args = [&always[..], &window[..], arguments].concat();
        let options = json!({
            "args": args,
            "prefs": { "intl.accept_languages": "en" },
        });
        let capabilities = json!({ "goog:chromeOptions": options });
        let mut builder = ClientBuilder::new(HttpConnector::new());
        builder.capabilities(capabilities.as_object().cloned().unwrap_or_default());
        let client = eventually("the browser starts", TIMEOUT, async || {
            builder.connect(&format!("http://127.0.0.1:{port}")).await.ok()
        })
        .await;
        let process = client.capabilities().and_then(|known| known.get("goog:processID")?.as_u64());
        Some(Self { client, base: site.base.clone(), driver, process, profile })
    }

    /// Opens the page at this path of the site.
    pub async fn open(&self, path: &str) {
        done("a page opens", self.client.goto(&format!("{}{path}", self.base)).await);
    }

    pub async fn reload(&self) {
        done("the page reloads", self.client.refresh().await);
    }

    /// Waits for an element that is shown.
    ///
    /// # Panics
    /// When there is none in time, with what the page shows.
    pub async fn find(&self, css: &str) -> Element {
        self.wait(&format!("{css} is shown"), async || {
            let found = self.client.find(Locator::Css(css)).await.ok()?;
            found.is_displayed().await.ok()?.then_some(found)
        })
        .await
    }

    /// Whether there is such an element now.
    pub async fn has(&self, css: &str) -> bool {
        self.client.find(Locator::Css(css)).await.is_ok()
    }

    pub async fn click(&self, css: &str) {
        self.wait(&format!("{css} can be clicked"), async || {
            let found = self.client.find(Locator::Css(css)).await.ok()?;
            found.click().await.ok()
        })
        .await;
    }

    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.find(css).await;
        done("a field can be emptied", field.clear().await);
        done("a field takes text", field.send_keys(text).await);
    }

    /// Waits until the first such element has this text in it. Returns the whole.
    pub async fn shows(&self, css: &str, text: &str) -> String {
        self.wait(&format!("{css} shows {text:?}"), async || {
            let found = self.client.find(Locator::Css(css)).await.ok()?.text().await.ok()?;
            found.contains(text).then_some(found)
        })
        .await
    }

    pub async fn resize(&self, width: u32, height: u32) {
        done("the window has another size", self.client.set_window_size(width, height).await);
    }

    /// The result of a script's `return`.
    pub async fn run(&self, script: &str) -> Value {
        done("a script runs", self.client.execute(script, Vec::new()).await)
    }

    /// What a script passes to the function that is its last argument.
    pub async fn run_async(&self, script: &str) -> Value {
        done("a script runs", self.client.execute_async(script, Vec::new()).await)
    }

    /// Sends a key to what has the focus.
    pub async fn press(&self, key: &str) {
        let focused = done("something has the focus", self.client.active_element().await);
        done("a key is pressed", focused.send_keys(key).await);
    }

    /// Presses Tab until the focus is where `css` says, and visible.
    ///
    /// # Panics
    /// When the keyboard does not get there.
    pub async fn tab_to(&self, css: &str) {
        for _ in 0..80 {
            self.press(TAB).await;
            let there = format!("return document.activeElement.matches({css:?})");
            if self.run(&there).await == true {
                let outline = "return getComputedStyle(document.activeElement).outlineStyle";
                assert_ne!(self.run(outline).await, "none", "{css}: the focus cannot be seen");
                return;
            }
        }
        panic!("the keyboard does not reach {css}: {}", self.text().await);
    }

    /// What the page shows.
    pub async fn text(&self) -> String {
        self.run("return document.body.innerText").await.as_str().unwrap_or_default().to_owned()
    }

    /// Writes a picture of the window to the folder `SCREENSHOTS`, if that variable is set.
    pub async fn picture(&self, name: &str) {
        let Ok(folder) = std::env::var("SCREENSHOTS") else { return };
        let image = done("the window has a picture", self.client.screenshot().await);
        done(
            "the folder is writable",
            std::fs::write(PathBuf::from(folder).join(format!("{name}.png")), image),
        );
    }

    async fn wait<T>(&self, what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
        let end = tokio::time::Instant::now() + TIMEOUT;
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            if tokio::time::Instant::now() > end {
                panic!("not within {TIMEOUT:?}: {what}; the page: {}", self.text().await);
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.driver.kill();
        if let Some(process) = self.process {
            let killed = Command::new("kill").args(["-KILL", &process.to_string()]).status();
            killed.map(drop).unwrap_or_else(|why| eprintln!("the browser cannot be ended: {why}"));
        }
        let _ = self.driver.wait();
        let _ = std::fs::remove_dir_all(&self.profile);
    }
}

/// How often the driver is started: it picks a port that is free with IPv4, and ends if IPv6 has it in use.
const STARTS: usize = 5;

/// The driver, and the port at which it listens. `None` if it is not installed.
fn start_driver() -> Option<(Child, u16)> {
    for _ in 0..STARTS {
        let mut driver = Command::new("chromedriver").arg("--port=0").stdout(Stdio::piped()).spawn().ok()?;
        if let Some(port) = port_of(&mut driver) {
            return Some((driver, port));
        }
        let _ = driver.wait();
    }
    panic!("the driver does not say at which port it listens");
}

/// The driver's last word at its start is the port.
fn port_of(driver: &mut Child) -> Option<u16> {
    let output = driver.stdout.take()?;
    let mut lines = BufReader::new(output).lines().map_while(Result::ok);
    let line = lines.find(|line| line.contains("started successfully on port"))?;
    line.trim_end_matches('.').rsplit(' ').next()?.parse().ok()
}

fn done<T, E: Debug>(what: &str, result: Result<T, E>) -> T {
    result.unwrap_or_else(|why| panic!("not so: {what}: {why:?}"))
}
