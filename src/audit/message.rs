//! A row of the audit log as a DICOM audit message: XML by the schema of PS3.15 A.5.1, codes of PS3.16 (DCM).

use std::fmt::Write;

use crate::ledger::AuditRow;

/// Who reports.
pub struct Source {
    /// The node's AE title.
    pub name: String,
    pub host: String,
    pub process: u32,
}

impl Source {
    pub fn of_this_process(name: &str) -> Source {
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        // RFC 5424 6.2.4: printable ASCII, no space.
        let host: String = host.trim().chars().filter(char::is_ascii_graphic).take(255).collect();
        let host = if host.is_empty() { "-".into() } else { host };
        Source { name: name.into(), host, process: std::process::id() }
    }
}

/// A code with its meaning.
type Code = (&'static str, &'static str);

const APPLICATION_ACTIVITY: Code = ("110100", "Application Activity");
const INSTANCES_ACCESSED: Code = ("110103", "DICOM Instances Accessed");
const INSTANCES_TRANSFERRED: Code = ("110104", "DICOM Instances Transferred");
const EXPORT: Code = ("110106", "Export");
const QUERY: Code = ("110112", "Query");
const SECURITY_ALERT: Code = ("110113", "Security Alert");
const USER_AUTHENTICATION: Code = ("110114", "User Authentication");

/// A deed in the words of DICOM: event, its type, and action (C create, R read, U update, D delete, E execute).
fn event(deed: &str) -> (Code, Option<Code>, char) {
    match deed {
        "node.start" => (APPLICATION_ACTIVITY, Some(("110120", "Application Start")), 'E'),
        "node.stop" => (APPLICATION_ACTIVITY, Some(("110121", "Application Stop")), 'E'),
        "login.begin" | "login.fail" => (USER_AUTHENTICATION, Some(("110122", "Login")), 'E'),
        "login.end" => (USER_AUTHENTICATION, Some(("110123", "Logout")), 'E'),
        "study.receive" => (INSTANCES_TRANSFERRED, None, 'C'),
        "study.view" => (INSTANCES_ACCESSED, None, 'R'),
        "study.search" => (QUERY, None, 'E'),
        "study.export" => (EXPORT, None, 'R'),
        _ if deed.starts_with("study.") => (INSTANCES_ACCESSED, None, 'U'),
        _ if deed.starts_with("user.") || deed.starts_with("token.") => {
            (SECURITY_ALERT, Some(("110129", "Security Configuration")), 'E')
        }
        "configuration.change" => (SECURITY_ALERT, Some(("110131", "Software Configuration")), 'E'),
        _ => (APPLICATION_ACTIVITY, None, 'E'),
    }
}

/// Text within an attribute's quotes. Characters that XML 1.0 does not have become `?`.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            '\t' | '\n' | '\r' => escaped.push(' '),
            '\0'..='\u{1f}' | '\u{fffe}' | '\u{ffff}' => escaped.push('?'),
            other => escaped.push(other),
        }
    }
    escaped
}

fn code(name: &str, (value, meaning): Code) -> String {
    format!("<{name} csd-code=\"{value}\" codeSystemName=\"DCM\" originalText=\"{meaning}\"/>")
}

/// The message of a row, in one line.
pub fn xml(source: &Source, row: &AuditRow) -> String {
    let (id, kind, action) = event(&row.deed);
    let failed = row.deed.ends_with(".fail");
    let (at, outcome) = (escaped(&row.at), if failed { 4 } else { 0 });
    let mut xml = String::from("<?xml version=\"1.0\" encoding=\"UTF-8\"?><AuditMessage>");
    let _ = write!(
        xml,
        "<EventIdentification EventActionCode=\"{action}\" EventDateTime=\"{at}\" EventOutcomeIndicator=\"{outcome}\">{}{}\
         </EventIdentification>",
        code("EventID", id),
        kind.map(|kind| code("EventTypeCode", kind)).unwrap_or_default()
    );
    let (actor, node) = (escaped(&row.actor), escaped(&source.name));
    let host = escaped(&source.host);
    let role = match row.deed.as_str() {
        "study.receive" => code("RoleIDCode", ("110153", "Source Role ID")),
        "node.start" | "node.stop" => code("RoleIDCode", ("110151", "Application Launcher")),
        _ => String::new(),
    };
    let _ = write!(
        xml,
        "<ActiveParticipant UserID=\"{actor}\" AlternativeUserID=\"{}\" UserIsRequestor=\"true\">{role}</ActiveParticipant>",
        escaped(&row.actor_kind)
    );
    let own_role = match row.deed.as_str() {
        "study.receive" => code("RoleIDCode", ("110152", "Destination Role ID")),
        _ => code("RoleIDCode", ("110150", "Application")),
    };
    let _ = write!(
        xml,
        "<ActiveParticipant UserID=\"{node}\" AlternativeUserID=\"{}\" UserIsRequestor=\"false\" NetworkAccessPointID=\"{host}\" \
         NetworkAccessPointTypeCode=\"1\">{own_role}</ActiveParticipant>",
        source.process
    );
    let _ = write!(
        xml,
        "<AuditSourceIdentification AuditSourceID=\"{node}\"><AuditSourceTypeCode csd-code=\"4\" codeSystemName=\"DCM\" \
         originalText=\"Application Server\"/></AuditSourceIdentification>"
    );
    let detail = format!(
        "<ParticipantObjectDetail type=\"{}\" value=\"{}\"/>",
        escaped(&row.deed),
        base64(row.details.as_bytes())
    );
    match (&row.study_uid, id) {
        (Some(study), _) => {
            let study = escaped(study);
            let _ = write!(
                xml,
                "<ParticipantObjectIdentification ParticipantObjectID=\"{study}\" ParticipantObjectTypeCode=\"2\" \
                 ParticipantObjectTypeCodeRole=\"3\">{}<ParticipantObjectName>{study}</ParticipantObjectName>{detail}\
                 </ParticipantObjectIdentification>",
                code("ParticipantObjectIDTypeCode", ("110180", "Study Instance UID"))
            );
        }
        (None, QUERY) => {
            let _ = write!(
                xml,
                "<ParticipantObjectIdentification ParticipantObjectID=\"worklist\" ParticipantObjectTypeCode=\"2\" \
                 ParticipantObjectTypeCodeRole=\"3\">{}<ParticipantObjectQuery>{}</ParticipantObjectQuery>\
                 </ParticipantObjectIdentification>",
                code("ParticipantObjectIDTypeCode", ("110181", "SOP Class UID")),
                base64(row.details.as_bytes())
            );
        }
        (None, SECURITY_ALERT) => {
            let _ = write!(
                xml,
                "<ParticipantObjectIdentification ParticipantObjectID=\"{node}\" ParticipantObjectTypeCode=\"2\">{}\
                 <ParticipantObjectName>{node}</ParticipantObjectName>{detail}</ParticipantObjectIdentification>",
                code("ParticipantObjectIDTypeCode", ("110182", "Node ID"))
            );
        }
        _ => {}
    }
    xml.push_str("</AuditMessage>");
    xml
}

/// RFC 4648 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = three.iter().fold(0u32, |bits, byte| bits << 8 | u32::from(*byte)) << (8 * (3 - three.len()));
        for digit in 0..4 {
            text.push(match digit <= three.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * digit) & 63) as usize]),
                false => '=',
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(deed: &str, study: Option<&str>) -> AuditRow {
        AuditRow {
            id: 1,
            at: "2026-11-27T09:00:00.000Z".into(),
            actor_kind: "person".into(),
            actor: "<Dr. \"O'Hara\" & Söhne>\u{1}".into(),
            deed: deed.into(),
            study_uid: study.map(str::to_owned),
            details: "{}".into(),
            hash: None,
        }
    }

    #[test]
    fn every_deed_has_its_event_and_nothing_is_unescaped() {
        let source = Source { name: "TRIAGED".into(), host: "node".into(), process: 1 };
        for (deed, study, id) in [
            ("node.start", None, "110100"),
            ("login.fail", None, "110114"),
            ("study.receive", Some("1.2"), "110104"),
            ("study.view", Some("1.2"), "110103"),
            ("study.acknowledge", Some("1.2"), "110103"),
            ("study.search", None, "110112"),
            ("study.export", Some("1.2"), "110106"),
            ("user.add", None, "110113"),
        ] {
            let xml = xml(&source, &row(deed, study));
            assert!(xml.contains(&format!("<EventID csd-code=\"{id}\"")), "{deed}: {xml}");
            assert!(xml.contains("UserID=\"&lt;Dr. &quot;O&#39;Hara&quot; &amp; Söhne&gt;?\""), "{xml}");
            assert_eq!(xml.contains("ParticipantObjectID=\"1.2\""), study.is_some(), "{xml}");
        }
        assert!(xml(&source, &row("login.fail", None)).contains("EventOutcomeIndicator=\"4\""));
    }

    #[test]
    fn base64_is_that_of_the_standard() {
        for (text, encoded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy"), ("{}", "e30=")]
        {
            assert_eq!(base64(text.as_bytes()), encoded);
        }
    }
}
