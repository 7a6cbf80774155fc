//! Login by an OpenID provider, a real one: Authlib's, as oidc-provider-mock serves it.

use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;

use crate::support::browser::Browser;
use crate::support::http::{Answer, ask, ask_at};
use crate::support::{Node, PATIENCE, free_port, python};

/// The provider. It ends with the value.
struct Provider {
    child: Child,
    port: u16,
}

impl Drop for Provider {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Provider {
    /// `None`, said aloud, where there is no such Python package.
    fn start() -> Option<Provider> {
        let python = python()?;
        let is_there =
            Command::new(&python).args(["-W", "ignore", "-c", "import oidc_provider_mock"]).output().unwrap();
        if !is_there.status.success() {
            eprintln!("SKIP the Python package oidc-provider-mock is not installed");
            return None;
        }
        let port = free_port();
        let people = [
            json!({ "sub": "ada", "preferred_username": "Dr Ada", "groups": ["radiology", "everybody"] }),
            json!({ "sub": "bob", "preferred_username": "Bob", "groups": ["everybody"] }),
            json!({ "sub": "mallory", "preferred_username": "root", "groups": ["radiology"] }),
            json!({ "sub": "another ada", "preferred_username": "Dr Ada", "groups": ["radiology"] }),
        ];
        let people = people.iter().flat_map(|person| ["--user-claims".to_owned(), person.to_string()]);
        let mut command = Command::new(python);
        command.args([
            "-W",
            "ignore",
            "-m",
            "oidc_provider_mock",
            "--require-nonce",
            "true",
            "--port",
            &port.to_string(),
        ]);
        let child = command.args(people).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        let provider = Provider { child, port };
        let begun = Instant::now();
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            assert!(begun.elapsed() < PATIENCE, "the provider does not listen");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        Some(provider)
    }

    fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Says at the provider who one is. Returns the path back to the node that the provider leads to.
    fn authorize(&self, address: &str, who: &str) -> String {
        let path = address.strip_prefix(&self.issuer()).unwrap_or_else(|| panic!("not the provider's: {address}"));
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        let answer = ask_at(([127, 0, 0, 1], self.port).into(), "POST", path, &form, &format!("sub={who}"));
        let back = answer.header("location").unwrap_or_else(|| panic!("{}\n{}", answer.head, answer.body));
        back.strip_prefix("http://localhost:1").unwrap_or_else(|| panic!("not this node's: {back}")).to_owned()
    }
}

fn node(provider: &Provider, more: &[(&str, &str)]) -> Node {
    let issuer = provider.issuer();
    let mut settings = vec![
        ("TRIAGED__WEB__LOGIN__ENABLED", "true"),
        ("TRIAGED__WEB__PUBLIC_URL", "http://localhost:1"),
        ("TRIAGED__WEB__LOGIN__OIDC__ISSUER", issuer.as_str()),
        ("TRIAGED__WEB__LOGIN__OIDC__CLIENT_ID", "triaged"),
        ("TRIAGED__WEB__LOGIN__OIDC__CLIENT_SECRET", "secret"),
        ("TRIAGED__WEB__LOGIN__OIDC__ROLES__READER", "radiology"),
    ];
    settings.extend(more);
    Node::start(&settings)
}

/// The cookie of that name, as a browser sends it back.
fn cookie(answer: &Answer, name: &str) -> String {
    let cookies = answer.headers("set-cookie");
    let found = cookies.iter().find(|cookie| cookie.starts_with(&format!("{name}=")));
    found.unwrap_or_else(|| panic!("no cookie {name}: {}", answer.head)).split(';').next().unwrap().to_owned()
}

/// Begins a login. Returns the provider's address and the cookie that binds the login to this browser.
fn begin(node: &Node) -> (String, String) {
    let answer = ask(node, "GET", "/login/oidc?next=/studies/x", &[], "");
    assert_eq!(answer.status, 303, "{}{}", answer.body, node.log());
    (answer.header("location").unwrap().to_owned(), cookie(&answer, "triaged_oidc"))
}

#[test]
fn whoever_the_provider_knows_has_the_role_of_their_groups_and_nobody_else_comes_in() {
    let Some(provider) = Provider::start() else { return };
    let node = node(&provider, &[]);
    let page = ask(&node, "GET", "/login?next=/studies/x", &[], "");
    assert!(page.body.contains("/login/oidc?next=/studies/x"), "{}", page.body);

    let (address, bound) = begin(&node);
    for part in ["code_challenge_method=S256", "nonce=", "state=", "scope=openid"] {
        assert!(address.contains(part), "{address}");
    }
    let back = provider.authorize(&address, "ada");
    // The way back without the cookie of the browser that began.
    assert_eq!(ask(&node, "GET", &back, &[], "").status, 403);
    assert_eq!(ask(&node, "GET", &back, &[("Cookie", "triaged_oidc=other")], "").status, 403);
    let answer = ask(&node, "GET", &back, &[("Cookie", &bound)], "");
    assert_eq!(answer.status, 200, "{}{}", answer.body, node.log());
    assert!(answer.body.contains("Logged in as Dr Ada") && answer.body.contains("url=/studies/x"), "{}", answer.body);
    let whole = answer.headers("set-cookie").join("\n");
    assert!(whole.contains("HttpOnly") && whole.contains("SameSite=Strict"), "{whole}");
    let session = cookie(&answer, "triaged_session");
    assert_eq!(ask(&node, "GET", "/", &[("Cookie", &session)], "").status, 200);
    assert_eq!(ask(&node, "GET", "/admin", &[("Cookie", &session)], "").status, 403, "a reader is no administrator");
    assert_eq!(node.query::<String>("SELECT actor FROM audit WHERE deed = 'login.begin'"), "Dr Ada");
    // The same way back once more.
    assert_eq!(ask(&node, "GET", &back, &[("Cookie", &bound)], "").status, 403);

    // Somebody without a role.
    let (address, bound) = begin(&node);
    let back = provider.authorize(&address, "bob");
    let refused = ask(&node, "GET", &back, &[("Cookie", &bound)], "");
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("Bob has no role here"), "{}", refused.body);

    // Somebody of the same name, who would otherwise share her sessions and her role.
    let (address, bound) = begin(&node);
    let back = provider.authorize(&address, "another%20ada");
    let refused = ask(&node, "GET", &back, &[("Cookie", &bound)], "");
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("another person"), "{}", refused.body);
    assert_eq!(ask(&node, "GET", "/", &[("Cookie", &session)], "").status, 200);

    // Somebody who calls themselves like a user of this node.
    assert!(node.cli(&["user", "add", "root", "--role", "admin"]).status.success());
    let (address, bound) = begin(&node);
    let back = provider.authorize(&address, "mallory");
    let refused = ask(&node, "GET", &back, &[("Cookie", &bound)], "");
    assert_eq!(refused.status, 403);
    assert!(refused.body.contains("with a password"), "{}", refused.body);
    assert!(refused.headers("set-cookie").iter().all(|cookie| !cookie.starts_with("triaged_session=")));

    // A code that is nobody's, and the password of somebody who has none.
    let (address, bound) = begin(&node);
    let back = provider.authorize(&address, "ada");
    let state = back.split("state=").nth(1).unwrap();
    let forged = format!("/login/oidc/callback?code=forged&state={state}");
    assert_eq!(ask(&node, "GET", &forged, &[("Cookie", &bound)], "").status, 502);
    let origin = format!("http://{}", node.web);
    let form = [("Origin", origin.as_str()), ("Content-Type", "application/x-www-form-urlencoded")];
    assert_eq!(ask(&node, "POST", "/login", &form, "name=Dr+Ada&password=!&next=/").status, 401);
}

#[test]
fn a_provider_that_calls_itself_otherwise_is_refused() {
    let Some(provider) = Provider::start() else { return };
    // The provider names itself by the address that it is asked at, so under this one it is another issuer.
    let elsewhere = format!("http://localhost:{}", provider.port);
    let node = node(&provider, &[("TRIAGED__WEB__LOGIN__OIDC__ISSUER", &format!("{elsewhere}/"))]);
    let answer = ask(&node, "GET", "/login/oidc", &[], "");
    assert_eq!(answer.status, 502, "{}", answer.body);
    node.wait_for_log("OpenID provider failed");
    assert!(!answer.body.contains("localhost"), "people read no addresses: {}", answer.body);
}

#[test]
fn a_provider_that_is_away_is_said_and_passwords_still_work() {
    let Some(provider) = Provider::start() else { return };
    let node = node(&provider, &[]);
    drop(provider);
    let answer = ask(&node, "GET", "/login/oidc", &[], "");
    assert_eq!(answer.status, 502);
    assert!(answer.body.contains("log says why") && answer.body.contains("password"), "{}", answer.body);
    node.wait_for_log("cannot be asked for its addresses");
}

/// A provider whose tokens have faults (tests/peers/oidc_faults.py). `None`, said aloud, where it cannot run.
fn provider_with_faults() -> Option<Provider> {
    let mut command = Command::new(python()?);
    command.args(["-W", "ignore", "tests/peers/oidc_faults.py"]).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut std::io::BufReader::new(child.stdout.take().unwrap()), &mut line).unwrap();
    let Ok(port) = line.trim().parse() else {
        eprintln!("SKIP the Python package joserfc is not installed");
        child.wait().unwrap();
        return None;
    };
    Some(Provider { child, port })
}

/// Comes back from that provider with a token that has this fault.
fn log_in(node: &Node, fault: &str) -> Answer {
    let (address, bound) = begin(node);
    let value = |name: &str| {
        let query = address.split(['?', '&']).find_map(|part| part.strip_prefix(&format!("{name}=")));
        query.unwrap_or_else(|| panic!("no {name}: {address}")).to_owned()
    };
    let back = format!("/login/oidc/callback?code={fault}.{}&state={}", value("nonce"), value("state"));
    ask(node, "GET", &back, &[("Cookie", &bound)], "")
}

#[test]
fn an_id_token_with_a_fault_lets_nobody_in() {
    let Some(provider) = provider_with_faults() else { return };
    let node = node(&provider, &[]);
    assert_eq!(log_in(&node, "none").status, 200, "{}", node.log());
    assert_eq!(log_in(&node, "late").status, 200, "five seconds are a clock's difference: {}", node.log());
    for fault in ["audience", "party", "nonce", "expired", "future", "key", "issuer", "unsigned"] {
        let answer = log_in(&node, fault);
        assert_eq!(answer.status, 502, "{fault}: {}", answer.body);
        assert!(answer.headers("set-cookie").iter().all(|cookie| !cookie.starts_with("triaged_session=")), "{fault}");
    }
    assert_eq!(node.query::<i64>("SELECT count(*) FROM sessions"), 2);
    // What costs the provider nothing keeps nobody out: any page can make a browser ask for it, as a picture.
    for _ in 0..110 {
        assert_eq!(ask(&node, "GET", "/login/oidc/callback?code=x&state=y", &[], "").status, 403);
    }
    assert_eq!(log_in(&node, "none").status, 200, "{}", node.log());
    // Whoever makes many that do cost it something waits.
    for _ in 0..92 {
        assert_eq!(log_in(&node, "nonce").status, 502);
    }
    assert_eq!(ask(&node, "GET", "/login/oidc", &[], "").status, 429);
    assert_eq!(ask(&node, "GET", "/login/oidc/callback?code=x&state=y", &[], "").status, 429);
    // An address with a part twice is answered by a page, too.
    for twice in ["/login/oidc?next=/a&next=/b", "/login/oidc/callback?code=x&state=y&state=z"] {
        let answer = ask(&node, "GET", twice, &[], "");
        assert_eq!((answer.status, answer.header("content-type")), (400, Some("text/html; charset=utf-8")), "{twice}");
    }
}

#[test]
fn a_key_that_the_provider_has_just_changed_is_fetched_at_once_and_one_that_it_does_not_publish_is_not_asked_for_again_and_again()
 {
    let Some(provider) = provider_with_faults() else { return };
    let node = node(&provider, &[]);
    let asked = || -> u32 {
        let answer = ask_at(([127, 0, 0, 1], provider.port).into(), "GET", "/asked", &[], "");
        answer.body.trim().parse().unwrap()
    };
    assert_eq!(log_in(&node, "none").status, 200, "{}", node.log());
    assert_eq!(asked(), 1);
    assert_eq!(log_in(&node, "rotated").status, 200, "{}", node.log());
    assert_eq!(log_in(&node, "none").status, 200, "the new key is known now: {}", node.log());
    assert_eq!(asked(), 2);
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(log_in(&node, "unpublished").status, 502);
    }
    let most = 3 + begun.elapsed().as_secs() as u32 / 2;
    assert!((2..=most).contains(&asked()), "{} times", asked());
    node.wait_for_log("No matching key found");
}

/// Whoever lost their groups at the provider loses what they have open, too: tested with the ledger, as the provider's people do not change.
#[test]
fn another_role_or_none_ends_the_sessions_of_a_provided_user() {
    use triaged::ledger::{Actor, Ledger, Role};
    let folder = tempfile::tempdir().unwrap();
    let ledger = Ledger::open(&folder.path().join("triaged.db")).unwrap();
    let (actor, hour) = (Actor::system(), std::time::Duration::from_secs(3600));
    let put = |subject, role| ledger.put_provided_user("Ada", subject, role, &actor).unwrap();
    let begin = || ledger.begin_session("Ada", "hash", hour, &actor).unwrap();
    let is_in = || ledger.use_session("hash", hour).unwrap().is_some();
    assert!(put("issuer 1", Role::Reader));
    begin();
    assert!(put("issuer 1", Role::Reader) && is_in());
    assert!(!put("issuer 2", Role::Admin) && is_in(), "another person of that name changes nothing");
    assert!(put("issuer 1", Role::Viewer) && !is_in(), "another role begins anew");
    begin();
    ledger.end_provided_sessions("issuer 2").unwrap();
    assert!(is_in());
    ledger.end_provided_sessions("issuer 1").unwrap();
    assert!(!is_in());
}

/// The session's cookie is SameSite=Strict, and the way back begins at another site: only a browser shows that it holds.
#[test]
fn a_browser_comes_from_the_provider_to_the_page_it_wanted() {
    let Some(provider) = Provider::start() else { return };
    let port = free_port();
    let (listen, public) = (format!("127.0.0.1:{port}"), format!("http://localhost:{port}"));
    let more = [("TRIAGED__WEB__LISTEN", listen.as_str()), ("TRIAGED__WEB__PUBLIC_URL", public.as_str())];
    let node = node(&provider, &more);
    let Some(mut browser) = Browser::start_at(&format!("{public}/")) else { return };
    browser.open(0, json!({}), "?verdict=flagged");
    browser.wait(0, "location.pathname === '/login'");
    browser.click(0, "a[href^='/login/oidc']");
    browser.wait(0, &format!("location.port === '{}'", provider.port));
    browser.click(0, "button[value=ada]");
    browser.wait(0, "location.pathname === '/' && location.search === '?verdict=flagged'");
    assert_eq!(node.query::<i64>("SELECT count(*) FROM sessions"), 1);
}
