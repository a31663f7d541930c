//! The signs a text aimed at a model is made of: classes of words in an order, near each other, in one sentence. A sign has
//! a weight; none knows a whole attack. Must stay a table: what is done with it is in `reader.rs`.

#[allow(clippy::wildcard_imports, reason = "the classes are the words of this table")]
use super::lexicon::*;

/// One sign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sign {
    /// What the text does, for the one who reviews.
    pub(super) says: &'static str,
    /// How much it counts among what is said of a finding. What it counts for the finding itself is learnt.
    pub(super) weight: u32,
    /// One after the other, each at most so many words behind the one before. Every class of a part has to be there when
    /// the part says `all`, else one of them.
    pub(super) parts: &'static [Part],
    /// Classes that, between the parts, make it another sentence.
    pub(super) unless: Classes,
    /// Classes that weigh half as much in a tool whose business they are.
    pub(super) business: Classes,
}

/// One place of a sign.
#[derive(Debug, Clone, Copy)]
pub(super) struct Part {
    pub(super) classes: Classes,
    pub(super) all: bool,
    pub(super) within: usize,
}

const fn any(classes: Classes, within: usize) -> Part {
    Part { classes, all: false, within }
}

/// Something is ordered done, of these kinds: the order and one kind.
const fn order(classes: Classes, within: usize) -> Part {
    Part { classes, all: true, within }
}

const fn sign(says: &'static str, weight: u32, parts: &'static [Part]) -> Sign {
    Sign { says, weight, parts, unless: 0, business: 0 }
}

impl Sign {
    const fn unless(self, unless: Classes) -> Self {
        Self { unless, ..self }
    }

    const fn business(self, business: Classes) -> Self {
        Self { business, ..self }
    }
}

const KEPT: &str = "wants something kept from the user";
const SPEAKS: &str = "speaks to the model as its master";
const ORDERS: &str = "gives orders to the model";
const FIRST: &str = "wants to be first, or before others";
const OTHERS: &str = "changes how other tools are used";
const PREFERS: &str = "wants to be chosen over others";
const SECRETS: &str = "reaches for secrets";
const TALKS: &str = "reaches for the conversation";
const FILES: &str = "reaches for files";
const AWAY: &str = "wants something carried off";
const ASKED: &str = "wants approvals passed by";
const POWER: &str = "claims authority";
const PRESSES: &str = "presses or threatens";
const ANSWERS: &str = "changes what the user is told";
const LASTS: &str = "wants to outlast the call";
const OBEYS: &str = "wants what comes back obeyed";
const HARMS: &str = "wants something destroyed, allowed or paid";
const CHANGES: &str = "changes where something goes";

/// Every sign.
pub(super) const SIGNS: &[Sign] = &[
    // Secrecy.
    sign(KEPT, 9, &[any(NOTDO, 0), any(TELL, 3), any(USER, 6)]).unless(CONSENT),
    sign(KEPT, 3, &[any(NOTDO, 0), any(DISCLOSE, 3), any(USER, 9)]),
    sign(KEPT, 6, &[any(NOTDO, 0), any(DISCLOSE, 3)]),
    sign(KEPT, 4, &[any(SECRETLY, 0), any(VERBS | DONE, 3)]).unless(IGNORE),
    sign(KEPT, 4, &[order(ORDER, 0), any(SECRETLY, 12)]),
    sign(KEPT, 6, &[order(ORDER | OMIT, 0), any(HIDDEN, 5)]),
    sign(KEPT, 3, &[any(USER, 0), any(NOT, 4), any(KNOW, 4)]),
    sign(KEPT, 4, &[any(HIDDEN, 0), any(USER, 4)]),
    sign(KEPT, 2, &[any(USER, 0), any(KNOW, 4), any(NOT, 5)]).unless(WHEN),
    sign(KEPT, 2, &[order(ORDER, 0), any(UNASKED, 12)]),
    // Approvals.
    sign(ASKED, 7, &[any(NOTDO, 0), any(CONSENT, 4)]),
    sign(ASKED, 2, &[order(ORDER, 0), any(NOTDO, 10), any(CONSENT | ASK, 4)]),
    sign(ASKED, 2, &[any(NOTDO, 0), any(ASK, 1), any(USER, 5)]),
    sign(ASKED, 0, &[any(USER | CONSENT, 0), any(DEMANDS | KNOW | CONSENT, 5)]).unless(MUST | NOT | WHEN | ASK | SHOULD | WANTS),
    sign(ASKED, 9, &[order(ORDER | IGNORE, 0), any(RULES, 5)]),
    sign(ASKED, 2, &[any(CONSENT, 0), any(NOT, 3), any(MUST | WANTS | DEMANDS, 3)]),
    // Whom it speaks to.
    sign(SPEAKS, 0, &[any(CALLED, 0)]),
    sign(SPEAKS, 10, &[any(ROLE, 0)]).business(MODEL | TALK),
    sign(ORDERS, 3, &[any(MODEL, 0), any(MUST, 2), order(ORDER, 5)]).business(MODEL),
    sign(ORDERS, 3, &[any(MODEL, 0), any(MUST, 3)]).business(MODEL),
    sign(ORDERS, 2, &[any(MODEL, 0), any(SHOULD, 2), order(ORDER, 4)]).business(MODEL),
    sign(ORDERS, 0, &[any(YOU, 0), any(MUST, 2), order(ORDER, 4)]),
    sign(ORDERS, 0, &[any(ALWAYS, 0), order(ORDER, 3)]),
    sign(ORDERS, 0, &[any(MUST, 0), order(ORDER, 3)]),
    sign(ORDERS, 0, &[any(MODEL, 0), order(ORDER, 6)]).business(MODEL),
    // Order among tools and turns.
    sign(FIRST, 4, &[any(BEFORE, 0), any(OTHER_TOOL, 6)]),
    sign(FIRST, 4, &[any(BEFORE, 0), any(EVERY_TURN, 6)]),
    sign(FIRST, 6, &[any(RUN | CHOOSE, 0), any(EVERY_TURN, 12)]),
    sign(FIRST, 1, &[any(ALWAYS | MUST, 0), any(EVERY_TURN | OTHER_TOOL, 10)]),
    sign(FIRST, 2, &[any(MUST | ALWAYS, 0), any(BEFORE, 6)]),
    sign(FIRST, 2, &[any(BEFORE, 0), any(THIS_TOOL, 3), order(ORDER | READ | TRANSFER | RUN, 12)]),
    sign(FIRST, 0, &[any(BEFORE, 0), order(ORDER | READ, 8)]),
    // Preference.
    sign(PREFERS, 3, &[any(INSTEAD, 0), any(OTHER_TOOL, 5)]),
    sign(PREFERS, 5, &[any(NOTDO, 0), any(RUN | CHOOSE, 2), any(OTHER_TOOL, 5)]),
    sign(PREFERS, 6, &[any(OTHER_TOOL, 0), any(UNFIT, 5)]).unless(WHEN),
    sign(PREFERS, 0, &[any(THIS_TOOL, 0), any(BEST, 4)]),
    sign(PREFERS, 0, &[any(BEST, 0), any(OTHER_TOOL | THIS_TOOL | CHOOSE, 8)]),
    sign(PREFERS, 0, &[any(ALWAYS | MUST, 0), order(ORDER | CHOOSE, 3), any(THIS_TOOL | INSTEAD | BEST, 6)]),
    sign(PREFERS, 2, &[order(ORDER | IGNORE, 0), any(OTHER_TOOL, 5)]),
    // Other tools.
    sign(OTHERS, 7, &[any(WHEN, 0), any(OTHER_TOOL, 5), order(ORDER, 12)]),
    sign(OTHERS, 2, &[any(OTHER_TOOL, 0), any(MUST | INSTEAD | ALWAYS, 4)]).unless(BEFORE),
    sign(OTHERS, 3, &[order(ORDER | TRANSFER, 0), any(RESULT, 5), any(OTHER_TOOL, 5)]),
    sign(OTHERS, 2, &[any(OTHER_TOOL, 0), any(RESULT, 3), any(MUST, 5)]),
    sign(CHANGES, 0, &[order(ORDER | ALTER, 0), any(RECIPIENT, 5)]).business(RECIPIENT),
    sign(CHANGES, 2, &[any(RECIPIENT, 0), any(MUST | SHOULD, 4), any(SINK | DONE, 6)]).business(RECIPIENT),
    sign(CHANGES, 0, &[any(RECIPIENT, 0), any(MUST, 3)]).business(RECIPIENT),
    // Secrets.
    sign(SECRETS, 4, &[order(ORDER | READ, 0), any(HARD_SECRET, 8)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 5, &[order(ORDER | TRANSFER, 0), any(HARD_SECRET, 9)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 10, &[order(ORDER | READ, 0), any(SECRET, 6)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 0, &[order(ORDER | TRANSFER, 0), any(SECRET, 7)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 3, &[any(HANDING | WANTS, 0), any(HARD_SECRET, 7)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 2, &[any(HARD_SECRET, 0), any(MUST | SHOULD, 4), any(DONE | WANTS, 4)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 2, &[any(SECRET, 0), any(MUST | SHOULD, 4), any(DONE, 4)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 5, &[any(SECRET | HARD_SECRET, 0), any(AT_HAND, 5)]).business(SECRET),
    sign(SECRETS, 1, &[any(ASK, 0), any(USER, 3), any(SECRET | HARD_SECRET | PERSONAL, 7)])
        .business(SECRET | HARD_SECRET | PERSONAL),
    sign(SECRETS, 1, &[order(ORDER | TRANSFER, 0), any(PERSONAL, 7)]).business(PERSONAL),
    sign(SECRETS, 7, &[any(HARD_SECRET, 0)]).business(SECRET | HARD_SECRET),
    // The conversation.
    sign(TALKS, 2, &[order(ORDER | TRANSFER, 0), any(WHOLE, 6), any(TALK, 5)]).business(TALK | MODEL),
    sign(TALKS, 7, &[order(ORDER | TRANSFER, 0), any(TALK, 6)]).business(TALK | MODEL),
    sign(TALKS, 5, &[order(ORDER | TRANSFER | READ | SAY, 0), any(ORDERS_OF_MODEL, 7)]).business(MODEL),
    sign(TALKS, 3, &[any(HANDING | WANTS, 0), any(WHOLE, 5), any(TALK, 4)]).business(TALK | MODEL),
    sign(TALKS, 2, &[any(HANDING | WANTS, 0), any(ORDERS_OF_MODEL, 6)]).business(MODEL | TALK),
    sign(TALKS, 2, &[any(TALK | ORDERS_OF_MODEL, 0), any(MUST | SHOULD, 4), any(DONE | WANTS, 5)]).business(TALK | MODEL),
    sign(TALKS, 5, &[any(WHOLE, 0), any(TALK, 4)]).business(TALK | MODEL),
    sign(TALKS, 0, &[any(TALK | ORDERS_OF_MODEL, 0), any(WANTS | DONE, 6)]).business(TALK | MODEL),
    sign(TALKS, 3, &[any(ORDERS_OF_MODEL, 0)]).business(MODEL | TALK),
    // Files and addresses.
    sign(FILES, 0, &[order(ORDER | READ, 0), any(FILE, 7)]).business(FILE),
    sign(FILES, 3, &[order(ORDER | TRANSFER, 0), any(FILE, 7)]).business(FILE),
    sign(FILES, 1, &[any(HANDING, 0), any(FILE, 5)]).business(FILE),
    sign(AWAY, 0, &[order(ORDER | TRANSFER, 0), any(SINK, 14)]).business(SINK),
    sign(AWAY, 2, &[any(SINK, 0), order(ORDER | TRANSFER, 12)]).business(SINK),
    sign(AWAY, 8, &[any(MUST | BESIDES | ALWAYS, 0), any(DONE, 4), any(SINK, 12)]).business(SINK),
    sign(AWAY, 3, &[order(ORDER | TRANSFER, 0), any(BESIDES, 3), any(RESULT | TALK | FILE | SINK, 10)]),
    sign(AWAY, 2, &[order(ORDER | TRANSFER, 0), any(AT_HAND, 10)]),
    sign(AWAY, 0, &[order(ORDER | RUN, 0), any(SHELL, 6)]).business(SHELL),
    sign(AWAY, 0, &[order(ORDER | RUN, 0), any(SINK, 8)]).business(SINK),
    // Authority and pressure.
    sign(POWER, 3, &[any(AUTHORITY, 0), any(DEMANDS, 4)]).business(AUTHORITY),
    sign(POWER, 3, &[any(DEMANDS, 0), any(AUTHORITY, 4)]).business(AUTHORITY),
    sign(POWER, 2, &[any(AUTHORITY, 0), any(MUST, 5)]).business(AUTHORITY),
    sign(PRESSES, 0, &[any(URGENT, 0), order(ORDER, 4)]),
    sign(PRESSES, 0, &[any(NOTDO | NOT, 0), any(THREAT, 10)]).unless(USER),
    sign(PRESSES, 0, &[any(URGENT, 0)]),
    sign(PRESSES, 0, &[any(USER, 0), any(THREAT, 6)]),
    // What the user is told.
    sign(ANSWERS, 1, &[order(ORDER | SAY, 0), any(USER, 3)]).unless(ASK | NOTDO),
    sign(ANSWERS, 1, &[any(ALWAYS | MUST, 0), order(ORDER | SAY, 3)]),
    sign(ANSWERS, 2, &[order(ORDER | LIE, 0)]),
    sign(ANSWERS, 3, &[order(ORDER | SAY, 0), any(BEST | LIE, 8)]),
    sign(ANSWERS, 2, &[any(WHEN, 0), any(USER, 3), order(ORDER | SAY, 10)]),
    // What lasts.
    sign(LASTS, 1, &[any(LASTING, 0)]).business(LASTING),
    sign(LASTS, 0, &[order(ORDER, 0), any(LASTING, 14)]).business(LASTING),
    sign(LASTS, 0, &[any(LASTING, 0), order(ORDER, 12)]).business(LASTING),
    // Obedience.
    sign(OBEYS, 3, &[order(ORDER | OBEY, 0), any(RULES, 5)]),
    sign(OBEYS, 0, &[order(ORDER | OBEY, 0), any(RESULT, 5), any(RULES | AUTHORITY, 8)]),
    sign(OBEYS, 5, &[any(RESULT, 0), any(MUST, 4), any(OBEY | DONE, 4)]),
    // Harm.
    sign(HARMS, 0, &[order(ORDER | DESTROY, 0), any(WHOLE, 4)]),
    sign(HARMS, 5, &[any(WHEN, 0), order(ORDER | DESTROY, 12)]),
    sign(HARMS, 3, &[order(ORDER | DESTROY | IGNORE, 0), any(GUARDS, 6)]),
    sign(HARMS, 2, &[order(ORDER | DESTROY, 0), any(GUARDS, 6)]),
    sign(HARMS, 2, &[any(WHEN | ALWAYS, 0), order(ORDER | PAY, 10)]).business(PAY),
    sign(HARMS, 2, &[order(ORDER | RUN, 0), any(FILE | RESULT, 3), any(SHELL, 8)]),
    // Silence and leave that are said in so many words.
    sign(KEPT, 9, &[any(HUSH, 0)]),
    sign(KEPT, 3, &[order(ORDER, 0), any(HUSH, 25)]),
    sign(ASKED, 8, &[any(CONSENT | RULES | GUARDS, 0), any(WAIVED, 6)]),
    sign(ASKED, 4, &[any(USER | AUTHORITY | MODEL, 0), any(WAIVED, 5)]).unless(WHEN | NOT),
    sign(ASKED, 4, &[any(WAIVED, 0), any(CONSENT | RULES | GUARDS, 6)]),
    sign(ASKED, 4, &[any(WAIVED, 0), any(CONSENT | RULES | GUARDS | RESULT, 12)]),
    sign(ASKED, 3, &[any(MODEL | WHEN | OTHER_TOOL, 0), any(ASK, 5), any(CONSENT, 3), any(ORDER | WAIVED, 4)]),
    sign(ASKED, 5, &[order(ORDER | IGNORE, 0), any(USER | AUTHORITY | GUARDS, 5)]),
    // What belongs to the user, or to whoever wrote this.
    sign(AWAY, 0, &[order(ORDER | TRANSFER | READ | ALTER | DESTROY, 0), any(THEIRS, 6)]),
    sign(AWAY, 9, &[order(ORDER | TRANSFER | ALTER | PAY, 0), any(MINE, 8)]),
    sign(AWAY, 0, &[order(ORDER | TRANSFER | READ, 0), any(WHOLE | AT_HAND, 4)]),
    sign(AWAY, 8, &[any(MUST | SHOULD, 0), any(DONE, 5), any(MINE | THEIRS | AT_HAND, 8)]),
    sign(
        AWAY,
        6,
        &[
            any(DONE | HANDING | TRANSFER, 0),
            any(WHOLE | AT_HAND, 5),
            any(FILE | SECRET | HARD_SECRET | TALK | PERSONAL | RESULT, 6),
        ],
    ),
    sign(FILES, 8, &[any(FILE | HARD_SECRET | PERSONAL | SECRET, 0), any(MUST | SHOULD, 6), any(DONE, 4)]).business(FILE),
    sign(FILES, 2, &[any(MUST | WANTS | SHOULD, 0), any(WHOLE, 4), any(FILE, 4)]).business(FILE),
    sign(FILES, 0, &[order(ORDER | READ | TRANSFER, 0), any(FILE, 4), any(THEIRS | WHOLE | AT_HAND, 6)]).business(FILE),
    sign(FILES, 5, &[order(ORDER | READ, 0), order(ORDER | TRANSFER, 14)]),
    sign(
        SECRETS,
        2,
        &[any(MUST | WANTS | SHOULD, 0), any(SECRET | HARD_SECRET, 6), any(AT_HAND | THEIRS | EVERY_TURN | USER, 6)],
    )
    .business(SECRET),
    sign(SECRETS, 0, &[any(SECRET | HARD_SECRET, 0), any(USER | THEIRS, 4)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 6, &[any(THEIRS | USER, 0), any(HARD_SECRET | PERSONAL, 4)]).business(SECRET | HARD_SECRET | PERSONAL | USER),
    sign(SECRETS, 0, &[order(ORDER | SAY | READ | TRANSFER, 0), any(PERSONAL | HARD_SECRET, 8)])
        .business(PERSONAL | SECRET | HARD_SECRET),
    sign(TALKS, 0, &[order(ORDER, 0), any(TALK | ORDERS_OF_MODEL, 10)]).business(TALK | MODEL),
    // Whatever the case.
    sign(ANSWERS, 3, &[order(ORDER | SAY | TELL, 0), any(ANYWAY, 10)]),
    sign(ANSWERS, 5, &[order(ORDER | SAY | TELL, 0), any(GOOD, 6)]),
    sign(ANSWERS, 6, &[order(ORDER | SAY | CHOOSE | ALTER, 0), any(PROMOTED, 8)]).business(PAY | PROMOTED),
    sign(ANSWERS, 0, &[order(ORDER | SAY, 0)]),
    sign(ORDERS, 6, &[order(ORDER, 0), any(ANYWAY, 12)]),
    sign(PRESSES, 4, &[any(YOU | USER | MODEL | THEIRS, 0), any(PUNISHED, 6)]).unless(NOTDO),
    sign(PRESSES, 4, &[any(NOTDO | NOT | THREAT, 0), any(PUNISHED, 14)]),
    sign(PRESSES, 2, &[any(PUNISHED, 0), any(YOU | NOT, 4), order(ORDER, 4)]),
    // Other tools by name.
    sign(OTHERS, 1, &[any(WHEN | LATER, 0), any(NAME, 4), any(MUST | ORDER | ALWAYS, 8)]).unless(THIS_TOOL),
    sign(OTHERS, 4, &[any(NAME | OTHER_TOOL, 0), any(MUST | ALWAYS, 8), any(RECIPIENT | DONE | ALTER | SINK, 6)]),
    sign(OTHERS, 6, &[any(LATER, 0), any(NAME | OTHER_TOOL | RECIPIENT, 5), any(MUST | ORDER, 8)]),
    sign(OTHERS, 8, &[any(NAME, 0), any(OTHER_TOOL, 5), any(MUST | ALWAYS | ORDER, 16)]),
    sign(CHANGES, 3, &[order(ORDER | ALTER, 0), any(RECIPIENT, 3), any(OTHER_TOOL | NAME | EVERY_TURN, 6)]),
    sign(AWAY, 0, &[order(ORDER | TRANSFER, 0), any(NAME, 8)]),
    sign(FIRST, 5, &[any(LATER, 0), order(ORDER, 10)]),
    // Preference, said otherwise.
    sign(PREFERS, 0, &[order(ORDER | CHOOSE | RUN | TRANSFER | ALTER, 0), any(INSTEAD, 6)]),
    sign(PREFERS, 4, &[any(BEST, 0), any(BEST, 6)]),
    sign(PREFERS, 2, &[any(INSTEAD, 0), any(USER | AUTHORITY, 3), any(ASK | DEMANDS | SAY | KNOW, 4)]),
    sign(PREFERS, 4, &[any(UNFIT, 0), any(UNFIT, 8)]),
    // Harm.
    sign(HARMS, 5, &[order(ORDER | DESTROY | PAY, 0), any(THEIRS | MINE, 6)]),
    sign(HARMS, 0, &[order(ORDER | DESTROY | PAY, 0)]).business(DESTROY | PAY),
    sign(HARMS, 0, &[order(ORDER | DESTROY | IGNORE | ALTER, 0), any(LASTING, 10)]),
    sign(HARMS, 2, &[order(ORDER | ALTER | TRANSFER | DESTROY | RUN, 0), any(SHELL, 8)]).business(SHELL),
    sign(OBEYS, 2, &[any(RESULT | FILE | SINK | RULES, 0), any(MUST, 8), any(OBEY, 8)]),
    sign(OBEYS, 2, &[any(RESULT | RULES, 0), any(SHELL, 4), order(ORDER, 4)]),
    // What counts more than somebody, and what comes back.
    sign(OBEYS, 4, &[any(OUTRANKS, 0), any(USER | AUTHORITY | RULES | ORDERS_OF_MODEL, 4)]).unless(WHEN),
    sign(OBEYS, 6, &[any(MUST, 0), any(OBEYED, 4)]),
    sign(OBEYS, 5, &[any(OBEYED, 0), any(USER | RULES | AUTHORITY | ORDERS_OF_MODEL, 5)]),
    sign(OBEYS, 0, &[any(RESULT | RULES, 0), any(OBEYED, 8)]),
    sign(SPEAKS, 2, &[any(IGNORE, 0), any(WHOLE | YOU | THEIRS, 3), any(RULES, 4)]),
    sign(SPEAKS, 0, &[any(YOU, 0), any(RULES, 3)]).business(MODEL | RULES),
    sign(AWAY, 9, &[any(WHEN, 0), order(ORDER | TRANSFER, 14), any(SINK | MINE, 10)]).business(SINK),
    sign(AWAY, 4, &[any(GATHER, 0), order(ORDER | READ | TRANSFER, 12)]),
    sign(AWAY, 6, &[any(GATHER, 0), any(FILE | TALK | SECRET | HARD_SECRET | PERSONAL | ORDERS_OF_MODEL, 10)])
        .business(FILE | TALK | SECRET | HARD_SECRET | PERSONAL),
    sign(AWAY, 2, &[any(FILE | TALK | SECRET | HARD_SECRET | PERSONAL | ORDERS_OF_MODEL, 0), any(GATHER, 14)])
        .business(FILE | TALK | SECRET | HARD_SECRET | PERSONAL),
    sign(HARMS, 10, &[order(ORDER | DESTROY | ALTER | TRANSFER | RUN, 0), any(PRIVILEGE, 6)]).business(PRIVILEGE),
    sign(HARMS, 2, &[any(MODEL | YOU | USER, 0), any(MUST | WAIVED, 4), any(PRIVILEGE, 6)]).business(PRIVILEGE),
    sign(TALKS, 4, &[any(TALK, 0)]).business(TALK | MODEL),
    sign(TALKS, 5, &[any(MUST | SHOULD, 0), any(TALK | ORDERS_OF_MODEL, 6)]).business(TALK | MODEL),
    sign(TALKS, 0, &[any(HANDING, 0), any(TALK | ORDERS_OF_MODEL, 5)]).business(TALK | MODEL),
    sign(SECRETS, 1, &[any(SECRET, 0), any(MUST | SHOULD | WANTS, 5)]).business(SECRET | HARD_SECRET),
    sign(SECRETS, 0, &[any(PERSONAL, 0), any(THEIRS | PERSONAL, 4)]).business(PERSONAL | USER),
    sign(FIRST, 2, &[any(BEFORE, 0), any(OTHER_TOOL | EVERY_TURN | THIS_TOOL, 4), order(ORDER | READ | RUN | TRANSFER, 12)]),
    sign(FIRST, 2, &[any(BEFORE | EVERY_TURN, 0), any(MUST, 12), any(DONE, 3)]),
    sign(KEPT, 2, &[any(UNASKED, 0), any(TRANSFER | READ | DONE, 4), any(WHOLE | FILE | TALK | SECRET | SINK, 8)]),
    sign(ANSWERS, 3, &[any(NOTDO, 0), any(SAY | TELL, 2), any(USER, 3)]).unless(CONSENT),
];
