//! Who runs a command, for the audit log.

use std::fs;

use triaged::ledger::Actor;

/// The names of this machine's users (passwd(5)). Users of a directory service are not in it; their log-in sets `USER`.
const PASSWD: &str = "/etc/passwd";

/// The user of the operating system: who called `sudo` where it was, else who is logged in.
pub fn actor() -> Actor {
    let uid = rustix::process::getuid();
    let variable = |name| std::env::var(name).ok().filter(|value: &String| !value.trim().is_empty());
    // Only root can have been made root by sudo.
    let name = if uid.is_root() { variable("SUDO_USER") } else { None };
    let name = name.or_else(|| variable("USER")).or_else(|| variable("LOGNAME"));
    // Neither is there in a container, or under cron.
    let name = name.or_else(|| name_of(&fs::read_to_string(PASSWD).ok()?, uid.as_raw()));
    Actor::person(name.unwrap_or_else(|| format!("uid {}", uid.as_raw())))
}

/// The first user with this number in a file of the form `name:password:uid:…`.
fn name_of(passwd: &str, uid: u32) -> Option<String> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next().filter(|name| !name.is_empty() && !name.starts_with('#'))?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_has_the_name_that_the_machine_knows_it_by() {
        let passwd =
            "# users\nroot:x:0:0:root:/root:/bin/bash\nbroken\n+::::::\nradiology:x:1001:1001::/home/r:/bin/sh\n";
        assert_eq!(name_of(passwd, 0).as_deref(), Some("root"));
        assert_eq!(name_of(passwd, 1001).as_deref(), Some("radiology"));
        assert_eq!(name_of(passwd, 7), None);
    }
}
