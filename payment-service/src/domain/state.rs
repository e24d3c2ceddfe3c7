//! The table of a payment's statuses and intents.
//!
//! | status | what may be intended | becomes |
//! |---|---|---|
//! | authorizing | authorize, void | authorized, declined, voided; unknown if no answer comes |
//! | authorized | capture, void | captured, voided; unknown if a capture is not answered; as before if it is declined |
//! | unknown | authorize, capture, void | what asking tells: as before, authorized, captured, declined, voided |
//! | captured | | refunding |
//! | refunding | refund | partially_refunded, refunded; captured if the refund is refused |
//! | partially_refunded | | refunding |
//! | declined | void, of an authorization that was given up | |
//! | voided, refunded | | |
//!
//! What was captured is undone by a refund, never by a void.

/// What is known of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The card network has been asked, or is about to be.
    Authorizing,
    /// The money is held for us.
    Authorized,
    /// The money is ours.
    Captured,
    /// The card network refused, or could not be reached.
    Declined,
    /// The money is not held any more, or never was.
    Voided,
    /// Money is on its way back.
    Refunding,
    /// Some of the money went back.
    PartiallyRefunded,
    /// All of it went back.
    Refunded,
    /// The card network was asked and did not answer: what it did is learned by asking.
    Unknown,
}

/// What is still to be carried out at the card network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Intent {
    /// Hold the money.
    Authorize,
    /// Take it.
    Capture,
    /// Let it go.
    Void,
    /// Give some back.
    Refund,
}

/// What is known and what is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct State {
    /// What is known.
    pub status: Status,
    /// What is to be done, if anything.
    pub intent: Option<Intent>,
}

/// What can happen to a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Somebody wants the money taken.
    AskCapture,
    /// Somebody wants the money let go.
    AskVoid,
    /// Somebody wants money back.
    AskRefund,
    /// The network holds the money.
    Approved,
    /// The network refuses to hold it.
    Declined,
    /// The network has taken the money.
    Captured,
    /// The network refuses to take it.
    CaptureDeclined,
    /// The network has let it go, and will not hold it later.
    Voided,
    /// A refund is settled, another is waiting.
    MoreRefunds,
    /// No refund is waiting, and none has succeeded.
    NothingRefunded,
    /// No refund is waiting; some of the money went back.
    PartRefunded,
    /// No refund is waiting; all the money went back.
    AllRefunded,
    /// The network did not answer in time.
    NoAnswer,
    /// Asked afterwards, the network says that it has not done it.
    NotDone,
    /// We stop trying to have the money held.
    GiveUp,
}

/// Where a step leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// To this state.
    To(State),
    /// Nowhere, and that is fine: it has happened, or something stronger is under way.
    Stays,
    /// Nowhere: who asks for it has missed something, or the card network contradicts itself.
    Never,
}

impl State {
    /// Where `step` leads from here.
    pub fn after(self, step: Step) -> Next {
        use Intent::{Authorize, Capture, Refund, Void};
        use Next::{Never, Stays};
        use Status::*;
        let Self { status, intent } = self;
        match step {
            Step::AskCapture => match (status, intent) {
                (Authorized, None) => to(Authorized, Capture),
                // An undo that is under way is not overtaken by what it undoes.
                (Authorized, Some(_)) => Stays,
                (Authorizing | Unknown, Some(Authorize)) => Never,
                (Authorizing | Unknown, _) => Stays,
                (Captured | Declined | Voided | Refunding | PartiallyRefunded | Refunded, _) => Stays,
            },
            Step::AskVoid => match (status, intent) {
                (_, Some(Void)) => Stays,
                // If the money is being taken right now, the network decides which came first.
                (Authorizing | Authorized | Unknown, _) => to(status, Void),
                (Captured | Declined | Voided | Refunding | PartiallyRefunded | Refunded, _) => Stays,
            },
            Step::AskRefund => match status {
                Captured | Refunding | PartiallyRefunded => to(Refunding, Refund),
                Refunded => Stays,
                Authorizing | Authorized | Unknown | Declined | Voided => Never,
            },
            Step::Approved => match (status, intent) {
                (Authorizing | Unknown, Some(Authorize)) => rest(Authorized),
                _ => Never,
            },
            Step::Declined => match (status, intent) {
                (Authorizing | Unknown, Some(Authorize)) => rest(Declined),
                _ => Never,
            },
            // Also the answer to a void that came too late.
            Step::Captured => match (status, intent) {
                (Authorized | Unknown, Some(Capture | Void)) => rest(Captured),
                _ => Never,
            },
            Step::CaptureDeclined => match (status, intent) {
                (Authorized | Unknown, Some(Capture)) => rest(Authorized),
                _ => Never,
            },
            Step::Voided => match (status, intent) {
                (Authorizing | Authorized | Unknown, Some(_)) => rest(Voided),
                (Declined, Some(Void)) => rest(Declined),
                _ => Never,
            },
            Step::MoreRefunds => refunded(status, State { status: Refunding, intent: Some(Refund) }),
            Step::NothingRefunded => refunded(status, State { status: Captured, intent: None }),
            Step::PartRefunded => refunded(status, State { status: PartiallyRefunded, intent: None }),
            Step::AllRefunded => refunded(status, State { status: Refunded, intent: None }),
            Step::NoAnswer => match intent {
                Some(intent @ (Authorize | Capture)) => to(Unknown, intent),
                // Letting go and giving back are safe to repeat under the same key.
                Some(Void | Refund) => Stays,
                None => Never,
            },
            Step::NotDone => match (status, intent) {
                (Unknown, Some(Authorize)) => to(Authorizing, Authorize),
                (Unknown, Some(Capture)) => to(Authorized, Capture),
                _ => Never,
            },
            // The network may have held the money without saying so: that is undone, later.
            Step::GiveUp => match (status, intent) {
                (Authorizing | Unknown, Some(Authorize)) => to(Declined, Void),
                _ => Never,
            },
        }
    }
}

fn to(status: Status, intent: Intent) -> Next {
    Next::To(State { status, intent: Some(intent) })
}

fn rest(status: Status) -> Next {
    Next::To(State { status, intent: None })
}

fn refunded(from: Status, to: State) -> Next {
    if from == Status::Refunding { Next::To(to) } else { Next::Never }
}

impl Status {
    /// All of them.
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

    /// Its name in the API and in the database.
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

    /// The status of that name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == name)
    }
}

impl Intent {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Authorize, Self::Capture, Self::Void, Self::Refund];

    /// Its name in the database and in keys for the card network.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Authorize => "authorize",
            Self::Capture => "capture",
            Self::Void => "void",
            Self::Refund => "refund",
        }
    }

    /// The intent of that name.
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
    fn a_payment_at_rest_moves_only_when_it_is_asked_to() {
        use Step::*;
        let said = [Approved, Declined, Captured, CaptureDeclined, Voided, NoAnswer, NotDone, GiveUp];
        for status in Status::ALL.into_iter().filter(|status| *status != Status::Refunding) {
            for step in said {
                assert_eq!(State { status, intent: None }.after(step), Next::Never, "{status:?} {step:?}");
            }
        }
    }

    #[test]
    fn money_that_went_back_or_never_came_cannot_be_taken() {
        for status in [Status::Declined, Status::Voided, Status::Refunded] {
            let state = State { status, intent: None };
            assert_eq!(state.after(Step::AskCapture), Next::Stays, "{status:?}");
            assert_eq!(state.after(Step::Captured), Next::Never, "{status:?}");
        }
    }
}
