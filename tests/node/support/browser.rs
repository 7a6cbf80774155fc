//! Headless Chromium on the node's pages, driven by Playwright (`tests/peers/browser.py`).

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{PATIENCE, python};

/// A browser; each page is another person's.
pub struct Browser {
    child: Child,
    /// Closed, it ends the browser.
    commands: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
    /// Pictures are laid here.
    pub folder: tempfile::TempDir,
}

impl Browser {
    /// `None`, said aloud, where there is no browser.
    pub fn start(web: SocketAddr) -> Option<Browser> {
        Browser::start_at(&format!("http://{web}/"))
    }

    /// A browser for the node at an address as people know it.
    pub fn start_at(address: &str) -> Option<Browser> {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(python()?);
        command.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/peers/browser.py"));
        command.arg(address).arg(folder.path());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        let (commands, stdout) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let mut answers = BufReader::new(stdout);
        let mut first = String::new();
        answers.read_line(&mut first).unwrap();
        if first.trim() != "ready" {
            eprintln!("SKIP no browser: {}", first.trim());
            child.wait().unwrap();
            return None;
        }
        Some(Browser { child, commands: Some(commands), answers, folder })
    }

    fn tell(&mut self, command: Value) -> Value {
        writeln!(self.commands.as_mut().expect("it is closed only when dropped"), "{command}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|_| panic!("the browser ended after {command}"));
        assert!(answer.get("error").is_none(), "{command}: {}", answer["error"]);
        answer["ok"].clone()
    }

    /// Opens an address of the node in page `page`. `options`: width, height, scheme, script, bypass.
    pub fn open(&mut self, page: u32, options: Value, path: &str) {
        self.tell(json!(["open", page, options, path]));
    }

    pub fn eval(&mut self, page: u32, expression: &str) -> Value {
        self.tell(json!(["eval", page, expression]))
    }

    pub fn text(&mut self, page: u32, selector: &str) -> String {
        let expression = format!("document.querySelector({selector:?})?.innerText ?? ''");
        self.eval(page, &expression).as_str().unwrap().to_owned()
    }

    /// Waits until the expression is true; milliseconds that took.
    pub fn wait(&mut self, page: u32, expression: &str) -> u64 {
        self.tell(json!(["wait", page, expression, 60_000])).as_u64().unwrap()
    }

    pub fn click(&mut self, page: u32, selector: &str) {
        self.tell(json!(["click", page, selector]));
    }

    pub fn fill(&mut self, page: u32, selector: &str, text: &str) {
        self.tell(json!(["fill", page, selector, text]));
    }

    pub fn press(&mut self, page: u32, key: &str) {
        self.tell(json!(["press", page, key]));
    }

    pub fn hover(&mut self, page: u32, selector: &str) {
        self.tell(json!(["hover", page, selector]));
    }

    pub fn wheel(&mut self, page: u32, y: i32) {
        self.tell(json!(["wheel", page, y]));
    }

    /// What scripts of the page get from now on for a method and a path, instead of the node's answer; null: the node's again.
    pub fn answer(&mut self, page: u32, method: &str, path: &str, answer: Value) {
        self.tell(json!(["answer", page, method, path, answer]));
    }

    /// The faults that axe-core finds in a page that was opened with `bypass`.
    pub fn axe(&mut self, page: u32) -> Vec<String> {
        serde_json::from_value(self.tell(json!(["axe", page]))).unwrap()
    }

    /// What axe-core finds wrong with the page's colours: all that another colour scheme changes.
    pub fn axe_colours(&mut self, page: u32) -> Vec<String> {
        serde_json::from_value(self.tell(json!(["axe", page, ["color-contrast", "link-in-text-block"]]))).unwrap()
    }

    /// A picture of the whole page.
    pub fn shot(&mut self, page: u32, name: &str) {
        self.tell(json!(["shot", page, name]));
    }

    /// Bytes that came over the wire since the page was opened.
    pub fn weight(&mut self, page: u32) -> u64 {
        self.tell(json!(["weight", page])).as_u64().unwrap()
    }

    /// Errors of scripts and of the security policy, and dialogs.
    pub fn faults(&mut self, page: u32) -> Vec<String> {
        serde_json::from_value(self.tell(json!(["faults", page]))).unwrap()
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // Killed, the driver would leave Chromium's processes behind.
        drop(self.commands.take());
        let deadline = Instant::now() + PATIENCE;
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
