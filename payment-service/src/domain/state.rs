//! The state machine of a payment: what is known (status), and what is still to be done at the card
//! network (intent).
//!
//! | status | possible intents | next status |
//! |---|---|---|
//! | authorizing | authorize, void | authorized, declined, voided; unknown without a response |
//! | authorized | capture, void | captured, voided; authorized if the capture is declined; unknown if a capture gets no response |
//! | unknown | authorize, capture, void | what a status query finds: authorizing, authorized, captured, declined, voided |
//! | captured | | refunding |
//! | refunding | refund | partially_refunded, refunded; captured if the refund is refused |
//! | partially_refunded | | refunding |
//! | declined | void, of an abandoned authorization | |
//! | voided, refunded | | |
//!
//! A captured payment is undone by a refund, never by a void.

/// What is known of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    Authorizing,
    /// The card network holds the money for us.
    Authorized,
    /// The money is ours.
    Captured,
    /// The card network refused, or could not be reached in time.
    Declined,
    /// No money is held.
    Voided,
    /// At least one refund is pending.
    Refunding,
    PartiallyRefunded,
    Refunded,
    /// The card network did not respond to an authorization or a capture. A status query, or the response to a void,
    /// shows what it did.
    Unknown,
}

/// What is still to be done at the card network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// Hold the money.
    Authorize,
    /// Take the money that is held.
    Capture,
    /// Release the money that is held.
    Void,
    /// Give back money that was taken.
    Refund,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    pub status: Status,
    /// `None` if nothing is left to do.
    pub intent: Option<Intent>,
}

/// What can happen to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    // Commands of the order, or of an admin.
    CaptureRequested,
    VoidRequested,
    RefundRequested,

    // Responses of the card network.
    Approved,
    Declined,
    Captured,
    CaptureDeclined,
    /// The network holds nothing, and will not hold it later.
    Voided,
    /// A status query says that the operation did not happen.
    NotExecuted,
    /// The effect of the request is unknown.
    NoResponse,

    // A refund is settled.
    /// Another refund is pending.
    MoreRefunds,
    /// No refund is pending, and none has succeeded.
    NothingRefunded,
    PartRefunded,
    AllRefunded,

    /// The time to authorize the payment is over.
    AuthorizationAbandoned,
}

/// The effect of a trigger on a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transition {
    To(State),
    /// The state stays the same. A command gets the known outcome once more, if there is one. A void or a refund
    /// without a response is sent again.
    Ignored,
    /// The state does not allow the command, or contradicts the response of the card network.
    Invalid,
}

impl State {
    pub fn on(self, trigger: Trigger) -> Transition {
        use Intent::{Authorize, Capture, Refund, Void};
        use Status::*;
        use Transition::{Ignored, Invalid};
        let Self { status, intent } = self;
        match trigger {
            Trigger::CaptureRequested => match (status, intent) {
                (Authorized, None) => to(Authorized, Capture),
                // A capture or a void is pending already.
                (Authorized, Some(_)) => Ignored,
                (Authorizing | Unknown, Some(Authorize)) => Invalid,
                (Authorizing | Unknown, _) => Ignored,
                (Captured | Declined | Voided | Refunding | PartiallyRefunded | Refunded, _) => Ignored,
            },
            Trigger::VoidRequested => match (status, intent) {
                (_, Some(Void)) => Ignored,
                // If a capture is running, the card network decides which came first.
                (Authorizing | Authorized | Unknown, _) => to(status, Void),
                (Captured | Declined | Voided | Refunding | PartiallyRefunded | Refunded, _) => Ignored,
            },
            Trigger::RefundRequested => match status {
                Captured | Refunding | PartiallyRefunded => to(Refunding, Refund),
                Refunded => Ignored,
                Authorizing | Authorized | Unknown | Declined | Voided => Invalid,
            },
            Trigger::Approved => match (status, intent) {
                (Authorizing | Unknown, Some(Authorize)) => settled(Authorized),
                _ => Invalid,
            },
            Trigger::Declined => match (status, intent) {
                (Authorizing | Unknown, Some(Authorize)) => settled(Declined),
                _ => Invalid,
            },
            // Also the response to a void that came too late.
            Trigger::Captured => match (status, intent) {
                (Authorized | Unknown, Some(Capture | Void)) => settled(Captured),
                _ => Invalid,
            },
            Trigger::CaptureDeclined => match (status, intent) {
                (Authorized | Unknown, Some(Capture)) => settled(Authorized),
                _ => Invalid,
            },
            Trigger::Voided => match (status, intent) {
                (Authorizing | Authorized | Unknown, Some(_)) => settled(Voided),
                (Declined, Some(Void)) => settled(Declined),
                _ => Invalid,
            },
            Trigger::NotExecuted => match (status, intent) {
                (Unknown, Some(Authorize)) => to(Authorizing, Authorize),
                (Unknown, Some(Capture)) => to(Authorized, Capture),
                _ => Invalid,
            },
            Trigger::NoResponse => match intent {
                Some(intent @ (Authorize | Capture)) => to(Unknown, intent),
                // A void is idempotent, and a refund has its own idempotency key. So both can be repeated.
                Some(Void | Refund) => Ignored,
                None => Invalid,
            },
            Trigger::MoreRefunds => after_refund(status, State { status: Refunding, intent: Some(Refund) }),
            Trigger::NothingRefunded => after_refund(status, State { status: Captured, intent: None }),
            Trigger::PartRefunded => after_refund(status, State { status: PartiallyRefunded, intent: None }),
            Trigger::AllRefunded => after_refund(status, State { status: Refunded, intent: None }),
            // The network may hold the money without having said so: the void releases it.
            Trigger::AuthorizationAbandoned => match (status, intent) {
                (Authorizing | Unknown, Some(Authorize)) => to(Declined, Void),
                _ => Invalid,
            },
        }
    }
}

fn to(status: Status, intent: Intent) -> Transition {
    Transition::To(State { status, intent: Some(intent) })
}

fn settled(status: Status) -> Transition {
    Transition::To(State { status, intent: None })
}

fn after_refund(from: Status, to: State) -> Transition {
    if from == Status::Refunding { Transition::To(to) } else { Transition::Invalid }
}

impl Status {
    pub const ALL: [Self; 9] = [
        Self::Authorizing,
        Self::Authorized,
        Self::Captured,
        Self::Declined,
        Self::Voided,
        Self::Refunding,
        Self::PartiallyRefunded,
        Self::Refunded,
        Self::Unknown,
    ];

    /// The name in the API and in the database.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorizing => "authorizing",
            Self::Authorized => "authorized",
            Self::Captured => "captured",
            Self::Declined => "declined",
            Self::Voided => "voided",
            Self::Refunding => "refunding",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
            Self::Unknown => "unknown",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl Intent {
    pub const ALL: [Self; 4] = [Self::Authorize, Self::Capture, Self::Void, Self::Refund];

    /// The name in the database, in events and in idempotency keys for the card network.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|intent| intent.as_str() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_as_what_it_names() {
        assert!(Status::ALL.into_iter().all(|status| Status::named(status.as_str()) == Some(status)));
        assert!(Intent::ALL.into_iter().all(|intent| Intent::named(intent.as_str()) == Some(intent)));
        assert_eq!((Status::named("paid"), Intent::named("")), (None, None));
    }

    #[test]
    fn a_settled_payment_changes_only_on_request() {
        use Trigger::*;
        let from_network = [
            Approved,
            Declined,
            Captured,
            CaptureDeclined,
            Voided,
            NoResponse,
            NotExecuted,
            AuthorizationAbandoned,
        ];
        for status in Status::ALL.into_iter().filter(|status| *status != Status::Refunding) {
            for trigger in from_network {
                let transition = State { status, intent: None }.on(trigger);
                assert_eq!(transition, Transition::Invalid, "{status:?} {trigger:?}");
            }
        }
    }

    #[test]
    fn money_that_went_back_or_never_came_cannot_be_taken() {
        for status in [Status::Declined, Status::Voided, Status::Refunded] {
            let state = State { status, intent: None };
            assert_eq!(state.on(Trigger::CaptureRequested), Transition::Ignored, "{status:?}");
            assert_eq!(state.on(Trigger::Captured), Transition::Invalid, "{status:?}");
        }
    }
}
