//! What the compiler says is lost if it is not used. Each line is an error if it does not.
#![deny(unfulfilled_lint_expectations)]

use std::sync::Arc;

use async_mutex_lite::KeyedMutex;

macro_rules! lost {
    ($($lost:expr;)*) => {
        $(
            #[expect(unused_must_use)]
            {
                $lost;
            }
        )*
    };
}

#[test]
fn guards_and_tickets_that_are_not_used_are_warned_of() {
    let mutex = Arc::new(KeyedMutex::<_>::new());
    lost! {
        mutex.try_lock(1);
        mutex.shared().try_lock(1);
        mutex.arc().try_lock(1);
        mutex.arc().shared().try_lock(1);
        smol::block_on(mutex.lock(1));
        smol::block_on(mutex.shared().lock(1));
        mutex.lock(1);
        mutex.ticket(1);
        mutex.ticket_if(1, |_| true);
        mutex.shared().ticket(1);
        mutex.shared().ticket_if(1, |_| true);
        mutex.arc().ticket_if(1, |_| true);
        mutex.arc().shared().ticket_if(1, |_| true);
    }
    #[cfg(feature = "std")]
    lost! {
        mutex.lock(1).wait();
        mutex.lock(1).wait_timeout(std::time::Duration::ZERO);
    }
    assert!(mutex.is_empty());
}
