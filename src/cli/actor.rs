//! Who runs a command, for the audit log.

use triaged::ledger::Actor;

/// The user of the operating system: who called `sudo` where it was, else who is logged in.
pub fn actor() -> Actor {
    let uid = rustix::process::getuid();
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
    // Only root can have been made root by sudo.
    let name = if uid.is_root() { variable("SUDO_USER") } else { None };
    let name = name.or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    Actor::person(name.unwrap_or_else(|| format!("uid {}", uid.as_raw())))
}
