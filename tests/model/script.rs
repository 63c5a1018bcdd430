//! What a script is made of.

use std::fmt;

use arbitrary::Arbitrary;

macro_rules! vocabulary {
    ($($item:item)*) => {
        $(
            #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Arbitrary)]
            #[cfg_attr(test, derive(proptest_derive::Arbitrary))]
            $item
        )*
    };
}

vocabulary! {
    /// A key. Few, so that they meet.
    pub(crate) enum Name {
        A,
        B,
        C,
    }

    /// Borrow the mutex, or own a share in it.
    pub(crate) enum By {
        Ref,
        Arc,
    }

    /// Each future has two wakers, so that it can be polled with another one than before.
    pub(crate) enum Spare {
        One,
        Two,
    }

    /// How many may share a key.
    pub(crate) enum Max {
        One,
        Two,
        NoLimit,
    }

    /// Which one, of those that the operation can be done to: counted round and round.
    pub(crate) struct Pick(pub(crate) u8);

    /// What a task does in the end.
    pub(crate) enum End {
        Ok,
        Err,
        Panic,
    }

    /// Returns pending this often, then ends.
    pub(crate) struct Task {
        pub(crate) or_stop: bool,
        pub(crate) long: bool,
        pub(crate) end: End,
    }

    /// What an admission closure says.
    pub(crate) enum Admit {
        Never,
        IfFree,
        IfShared,
        IfFewerThanTwoWait,
        Panic,
    }

    /// Exclusively, or together with others.
    pub(crate) enum Mode {
        Exclusive,
        #[cfg_attr(test, proptest(weight = 2))]
        Shared(Max),
    }

    pub(crate) enum Start {
        Lock(Name, By),
        TryLock(Name, By, Mode),
        /// Only done if the key is free: there is one thread.
        LockBlocking(Name, By),
        /// With no time to wait.
        LockBlockingFor(Name),
        LockUnless(Name, By),
        #[cfg_attr(test, proptest(weight = 3))]
        LockShared(Name, By, Max),
        LockMany([Option<Name>; 3], By),
        #[cfg_attr(test, proptest(weight = 3))]
        Run(Name, Task),
        #[cfg_attr(test, proptest(weight = 3))]
        Ticket(Name, By, Mode),
        /// Of one key, or of all.
        Idle(Option<Name>),
        TicketIf(Name, By, Mode, Admit),
    }

    pub(crate) enum Op {
        /// Calls a method, and keeps what it returns. Futures are not polled yet.
        Start(Start),
        /// Polls a future or a ticket.
        #[cfg_attr(test, proptest(weight = 3))]
        Poll(Pick, Spare),
        /// Drops a future, a ticket or a guard, whatever its state.
        Drop(Pick),
        /// Calls `stop` of a guard.
        StopGuard(Pick),
        /// Calls `downgrade` of a guard.
        Downgrade(Pick),
        /// Calls `stop` of the mutex.
        StopKey(Name),
        /// Makes the signal of a `lock_unless` ready.
        Signal(Pick),
        /// Makes a ticket run a task.
        RunTicket(Pick, Task),
        /// Makes a guard run a task, which stops the queue unless it is `Ok`.
        RunGuard(Pick, Task),
        /// Calls `stop_all`.
        StopAll,
        /// Makes room for so many.
        Reserve(u8),
    }
}

impl Mode {
    /// How many may share a key; 0: it is exclusive.
    pub(crate) fn max(self) -> usize {
        match self {
            Self::Exclusive => 0,
            Self::Shared(Max::One) => 1,
            Self::Shared(Max::Two) => 2,
            Self::Shared(Max::NoLimit) => usize::MAX,
        }
    }
}

impl Name {
    pub(crate) const ALL: [Self; 3] = [Self::A, Self::B, Self::C];
}

/// How a key stands: how many hold it, whether they share it, how many wait.
pub(crate) type Standing = (usize, bool, usize);

impl Admit {
    /// Whether it admits; `None`: it panics.
    pub(crate) fn decide(self, (holders, shared, waiting): Standing) -> Option<bool> {
        match self {
            Self::Never => Some(false),
            Self::IfFree => Some(holders == 0),
            Self::IfShared => Some(shared),
            Self::IfFewerThanTwoWait => Some(waiting < 2),
            Self::Panic => None,
        }
    }
}

/// Prints one operation on a line.
#[derive(Clone, Arbitrary)]
#[cfg_attr(test, derive(proptest_derive::Arbitrary))]
pub(crate) struct Script {
    #[cfg_attr(test, proptest(strategy = "proptest::collection::vec(proptest::arbitrary::any::<Op>(), 0..80)"))]
    pub(crate) ops: Vec<Op>,
}

impl fmt::Debug for Script {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ops.iter().try_for_each(|op| write!(f, "\n    {op:?}"))
    }
}
