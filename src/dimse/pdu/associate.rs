//! A-ASSOCIATE-RQ and A-ASSOCIATE-AC (PS3.8 9.3.2 and 9.3.3, PS3.7 D.3.3).
//!
//! The reader believes an item's own length and nothing else: an unknown item is skipped (PS3.8 9.3.1), surplus bytes at the
//! end of a known one are passed over, and an item that is too short for its fields counts for nothing. A presentation
//! context that is wrong in itself is refused alone. Only an item that is longer than the PDU spoils the whole request.

use super::error::PduError;
use super::types::ASSOCIATE_AC;

/// Item types (PS3.8 9.3.2, PS3.7 D.3.3).
mod item {
    pub const APPLICATION_CONTEXT: u8 = 0x10;
    pub const PROPOSED_CONTEXT: u8 = 0x20;
    pub const CONTEXT_RESULT: u8 = 0x21;
    pub const ABSTRACT_SYNTAX: u8 = 0x30;
    pub const TRANSFER_SYNTAX: u8 = 0x40;
    pub const USER_INFORMATION: u8 = 0x50;
    pub const MAXIMUM_LENGTH: u8 = 0x51;
    pub const IMPLEMENTATION_CLASS_UID: u8 = 0x52;
    pub const ROLE_SELECTION: u8 = 0x54;
    pub const IMPLEMENTATION_VERSION_NAME: u8 = 0x55;
    pub const EXTENDED_NEGOTIATION: u8 = 0x56;
    pub const USER_IDENTITY: u8 = 0x58;
    pub const USER_IDENTITY_RESPONSE: u8 = 0x59;
}

/// Protocol version, reserved bytes, AE titles, more reserved bytes: what comes before the items.
const FIXED: usize = 2 + 2 + TITLES;
const TITLES: usize = 16 + 16 + 32;

/// Called and calling AE title with the 32 reserved bytes behind them, as they came: an A-ASSOCIATE-AC repeats them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Titles([u8; TITLES]);

impl Titles {
    #[cfg(test)]
    pub(crate) fn new(called: &str, calling: &str) -> Titles {
        let mut titles = [b' '; TITLES];
        titles[..called.len()].copy_from_slice(called.as_bytes());
        titles[16..16 + calling.len()].copy_from_slice(calling.as_bytes());
        Titles(titles)
    }

    /// The called AE title, without the padding.
    pub fn called(&self) -> String {
        title(&self.0[..16])
    }

    /// The calling AE title, without the padding.
    pub fn calling(&self) -> String {
        title(&self.0[16..32])
    }
}

/// An association request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssociateRequest {
    pub protocol_version: u16,
    pub titles: Titles,
    /// Empty if the item is missing.
    pub application_context: String,
    pub contexts: Vec<ProposedContext>,
    /// The longest P-DATA-TF that the peer takes, in bytes of its length field; `None` means any (PS3.8 D.1.1).
    pub maximum_length: Option<u32>,
    pub implementation_class_uid: String,
    pub implementation_version_name: String,
    pub roles: Vec<RoleSelection>,
    pub extended_negotiation: Vec<SopClassExtendedNegotiation>,
    pub user_identity: Option<UserIdentity>,
}

/// A presentation context as proposed (PS3.8 9.3.2.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProposedContext {
    pub id: u8,
    /// `None` if it has no abstract syntax, several, or items that do not fit it: such a context can only be refused.
    pub abstract_syntax: Option<String>,
    pub transfer_syntaxes: Vec<String>,
}

/// SCP/SCU role selection (PS3.7 D.3.3.4), proposed or answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleSelection {
    pub sop_class_uid: String,
    /// The requestor may be SCU.
    pub scu: bool,
    /// The requestor may be SCP.
    pub scp: bool,
}

/// SOP class extended negotiation (PS3.7 D.3.3.5), proposed or answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SopClassExtendedNegotiation {
    pub sop_class_uid: String,
    /// The service class says what it means.
    pub information: Vec<u8>,
}

/// User identity (PS3.7 D.3.3.7). [`std::fmt::Debug`] shows neither field.
#[derive(Clone, PartialEq, Eq)]
pub struct UserIdentity {
    pub identity_type: UserIdentityType,
    pub positive_response_requested: bool,
    /// User name, Kerberos ticket, SAML assertion or JSON web token.
    pub primary: Vec<u8>,
    /// The passcode of [`UserIdentityType::UsernameAndPasscode`].
    pub secondary: Vec<u8>,
}

impl std::fmt::Debug for UserIdentity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("UserIdentity").field("identity_type", &self.identity_type).finish_non_exhaustive()
    }
}

/// The kinds of user identity (PS3.7 D.3.3.7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserIdentityType {
    Username,
    UsernameAndPasscode,
    Kerberos,
    Saml,
    Jwt,
    /// One that the standard does not know, by its code.
    Other(u8),
}

impl AssociateRequest {
    /// Reads what follows the PDU's length.
    ///
    /// # Errors
    /// [`PduError::Malformed`] if the fixed fields are not there or an item is longer than the PDU.
    pub fn parse(body: &[u8]) -> Result<AssociateRequest, PduError> {
        let (fixed, variable) = body.split_first_chunk::<FIXED>().ok_or_else(|| {
            PduError::Malformed(format!("an A-ASSOCIATE-RQ of {} bytes, at least {FIXED} are due", body.len()))
        })?;
        let mut titles = [0; TITLES];
        titles.copy_from_slice(&fixed[4..]);
        let mut request = AssociateRequest {
            protocol_version: u16::from_be_bytes([fixed[0], fixed[1]]),
            titles: Titles(titles),
            application_context: String::new(),
            contexts: Vec::new(),
            maximum_length: None,
            implementation_class_uid: String::new(),
            implementation_version_name: String::new(),
            roles: Vec::new(),
            extended_negotiation: Vec::new(),
            user_identity: None,
        };
        let mut items = Items(variable);
        for (kind, value) in items.by_ref() {
            match kind {
                item::APPLICATION_CONTEXT if request.application_context.is_empty() => {
                    request.application_context = uid(value);
                }
                item::PROPOSED_CONTEXT => request.contexts.extend(ProposedContext::parse(value)),
                item::USER_INFORMATION => Items(value).for_each(|(kind, value)| request.user_item(kind, value)),
                _ => {}
            }
        }
        items.end().map_err(|why| PduError::Malformed(format!("in an A-ASSOCIATE-RQ, {why}")))?;
        Ok(request)
    }

    fn user_item(&mut self, kind: u8, value: &[u8]) {
        match kind {
            item::MAXIMUM_LENGTH => {
                if let Some(length) = value.first_chunk() {
                    // Zero means that there is no maximum.
                    self.maximum_length = Some(u32::from_be_bytes(*length)).filter(|length| *length > 0);
                }
            }
            item::IMPLEMENTATION_CLASS_UID => self.implementation_class_uid = uid(value),
            item::IMPLEMENTATION_VERSION_NAME => self.implementation_version_name = title(value),
            item::ROLE_SELECTION => {
                if let Some((sop_class_uid, [scu, scp, ..])) = counted(value) {
                    let (scu, scp) = (*scu != 0, *scp != 0);
                    self.roles.push(RoleSelection { sop_class_uid: uid(sop_class_uid), scu, scp });
                }
            }
            item::EXTENDED_NEGOTIATION => {
                if let Some((sop_class_uid, information)) = counted(value) {
                    self.extended_negotiation.push(SopClassExtendedNegotiation {
                        sop_class_uid: uid(sop_class_uid),
                        information: information.to_vec(),
                    });
                }
            }
            item::USER_IDENTITY => {
                if let Some(identity) = UserIdentity::parse(value) {
                    self.user_identity = Some(identity);
                }
            }
            _ => {}
        }
    }
}

impl ProposedContext {
    /// `None` if there is not even an id to answer to.
    fn parse(value: &[u8]) -> Option<ProposedContext> {
        let (id, rest) = value.split_first()?;
        let mut context = ProposedContext { id: *id, abstract_syntax: None, transfer_syntaxes: Vec::new() };
        let mut items = Items(rest.get(3..).unwrap_or_default());
        let mut abstract_syntaxes = 0;
        for (kind, value) in items.by_ref() {
            match kind {
                item::ABSTRACT_SYNTAX => {
                    abstract_syntaxes += 1;
                    context.abstract_syntax = Some(uid(value)).filter(|uid| !uid.is_empty());
                }
                item::TRANSFER_SYNTAX => context.transfer_syntaxes.push(uid(value)),
                _ => {}
            }
        }
        if abstract_syntaxes > 1 || items.end().is_err() {
            context.abstract_syntax = None;
        }
        Some(context)
    }
}

impl UserIdentity {
    fn parse(value: &[u8]) -> Option<UserIdentity> {
        let (&[identity_type, positive_response_requested], rest) = value.split_first_chunk::<2>()?;
        let (primary, rest) = counted(rest)?;
        // Only user names with a passcode need the second field, and some senders leave it out otherwise.
        let secondary = counted(rest).map(|(secondary, _)| secondary).unwrap_or_default();
        Some(UserIdentity {
            identity_type: match identity_type {
                1 => UserIdentityType::Username,
                2 => UserIdentityType::UsernameAndPasscode,
                3 => UserIdentityType::Kerberos,
                4 => UserIdentityType::Saml,
                5 => UserIdentityType::Jwt,
                other => UserIdentityType::Other(other),
            },
            positive_response_requested: positive_response_requested != 0,
            primary: primary.to_vec(),
            secondary: secondary.to_vec(),
        })
    }
}

/// The items of a PDU or the sub-items of an item: type, a reserved byte, length, value.
struct Items<'b>(&'b [u8]);

impl<'b> Items<'b> {
    /// Whether all was read. Fewer bytes than a header has cannot be an item: they are padding.
    fn end(&self) -> Result<(), String> {
        match self.0 {
            [kind, _, high, low, rest @ ..] => {
                let length = u16::from_be_bytes([*high, *low]);
                Err(format!("an item of type {kind:02X}H states {length} bytes, {} are there", rest.len()))
            }
            _ => Ok(()),
        }
    }
}

impl<'b> Iterator for Items<'b> {
    type Item = (u8, &'b [u8]);

    fn next(&mut self) -> Option<(u8, &'b [u8])> {
        let (header, rest) = self.0.split_first_chunk::<4>()?;
        let (value, rest) = rest.split_at_checked(usize::from(u16::from_be_bytes([header[2], header[3]])))?;
        self.0 = rest;
        Some((header[0], value))
    }
}

/// A field with its length in two bytes before it, and what follows.
fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk::<2>()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}

/// UIDs in items are not padded (PS3.8 annex F), but some senders pad them as in a data set.
fn uid(raw: &[u8]) -> String {
    latin_1(raw).trim_matches(['\0', ' ']).to_owned()
}

/// Titles and names are padded with spaces; some senders end them with a zero byte and leave garbage behind it.
fn title(raw: &[u8]) -> String {
    let text = latin_1(raw);
    let text = text.trim_start_matches(['\0', ' ']);
    text.split('\0').next().unwrap_or_default().trim_end_matches(' ').to_owned()
}

/// Every byte is a character, so nothing is lost and nothing can fail.
fn latin_1(raw: &[u8]) -> String {
    raw.iter().map(|byte| char::from(*byte)).collect()
}

/// An association that is accepted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssociateAccept {
    pub titles: Titles,
    pub application_context: String,
    /// One for each context that was proposed, in their order.
    pub contexts: Vec<ContextResult>,
    /// The longest P-DATA-TF that the node asks for.
    pub maximum_length: u32,
    pub implementation_class_uid: &'static str,
    pub implementation_version_name: &'static str,
    pub roles: Vec<RoleSelection>,
    pub extended_negotiation: Vec<SopClassExtendedNegotiation>,
    /// The server response of a user identity that was checked, if one was asked for.
    pub user_identity_response: Option<Vec<u8>>,
}

/// The answer to a presentation context (PS3.8 9.3.3.2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContextResult {
    pub id: u8,
    pub reason: ContextResultReason,
    /// Not significant in a context that is refused, but it must be there.
    pub transfer_syntax: &'static str,
}

/// Result/Reason of a presentation context (PS3.8 table 9-18).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum ContextResultReason {
    Acceptance = 0,
    UserRejection = 1,
    ProviderRejection = 2,
    AbstractSyntaxNotSupported = 3,
    TransferSyntaxesNotSupported = 4,
}

impl AssociateAccept {
    /// The A-ASSOCIATE-AC PDU.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = vec![0, 1, 0, 0];
        body.extend(self.titles.0);
        push_item(&mut body, item::APPLICATION_CONTEXT, self.application_context.as_bytes());
        for context in &self.contexts {
            let mut value = vec![context.id, 0, context.reason as u8, 0];
            push_item(&mut value, item::TRANSFER_SYNTAX, context.transfer_syntax.as_bytes());
            push_item(&mut body, item::CONTEXT_RESULT, &value);
        }
        let mut user = Vec::new();
        push_item(&mut user, item::MAXIMUM_LENGTH, &self.maximum_length.to_be_bytes());
        push_item(&mut user, item::IMPLEMENTATION_CLASS_UID, self.implementation_class_uid.as_bytes());
        for role in &self.roles {
            let mut value = uid_field(&role.sop_class_uid);
            value.extend([u8::from(role.scu), u8::from(role.scp)]);
            push_item(&mut user, item::ROLE_SELECTION, &value);
        }
        push_item(&mut user, item::IMPLEMENTATION_VERSION_NAME, self.implementation_version_name.as_bytes());
        for negotiated in &self.extended_negotiation {
            let value = [uid_field(&negotiated.sop_class_uid), negotiated.information.clone()].concat();
            push_item(&mut user, item::EXTENDED_NEGOTIATION, &value);
        }
        if let Some(response) = &self.user_identity_response {
            let value = [&(response.len() as u16).to_be_bytes()[..], response].concat();
            push_item(&mut user, item::USER_IDENTITY_RESPONSE, &value);
        }
        push_item(&mut body, item::USER_INFORMATION, &user);
        let mut pdu = vec![ASSOCIATE_AC, 0];
        pdu.extend((body.len() as u32).to_be_bytes());
        pdu.extend(body);
        pdu
    }
}

/// Adds an item, with its length. What is longer than a length can say is cut off: the node's own values are far shorter.
fn push_item(items: &mut Vec<u8>, kind: u8, value: &[u8]) {
    let length = value.len().min(usize::from(u16::MAX));
    items.extend([kind, 0]);
    items.extend((length as u16).to_be_bytes());
    items.extend_from_slice(&value[..length]);
}

fn uid_field(uid: &str) -> Vec<u8> {
    [&(uid.len() as u16).to_be_bytes()[..], uid.as_bytes()].concat()
}
