//! The promises that one thread can test, on the event loop of JavaScript: in node, and in a browser.
#![cfg(target_arch = "wasm32")]

#[allow(dead_code)] // `forget`
#[path = "../examples/flights.rs"]
mod flights;

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Waker};

use async_mutex_lite::{KeyedMutex, Stopped};
use flights::Flights;
use futures_lite::future::{or, pending, yield_now, zip};
use js_sys::{Function, Promise, Reflect};
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::{JsFuture, spawn_local};
use wasm_bindgen_test::wasm_bindgen_test;

/// Waits for a turn of the event loop: a timer, so that everything else comes first.
async fn turn() {
    let timer = Promise::new(&mut |done, _| {
        let set_timeout: Function = Reflect::get(&js_sys::global(), &"setTimeout".into()).unwrap().unchecked_into();
        set_timeout.call1(&js_sys::global(), &done).unwrap();
    });
    JsFuture::from(timer).await.unwrap();
}

/// Spawns tasks, and waits until they have all ended.
async fn all<F: Future<Output = ()> + 'static>(tasks: impl IntoIterator<Item = F>) {
    let left = Rc::new(Cell::new(0));
    for task in tasks {
        left.set(left.get() + 1);
        let left = left.clone();
        spawn_local(async move {
            task.await;
            left.set(left.get() - 1);
        });
    }
    while left.get() > 0 {
        turn().await;
    }
}

/// How many were inside at once, at most, when six tasks read and write for three turns each.
async fn crowd(mutex: Option<&'static KeyedMutex<&'static str>>) -> usize {
    let inside = Rc::new(Cell::new(0));
    let most = Rc::new(Cell::new(0));
    let task = |_| {
        let (inside, most) = (inside.clone(), most.clone());
        async move {
            for _ in 0..3 {
                let _guard = match mutex {
                    Some(mutex) => Some(mutex.lock("account").await),
                    None => None,
                };
                inside.set(inside.get() + 1);
                most.set(most.get().max(inside.get()));
                turn().await;
                inside.set(inside.get() - 1);
            }
        }
    };
    all((0..6).map(task)).await;
    most.get()
}

#[wasm_bindgen_test]
async fn tasks_with_the_same_key_never_overlap() {
    static ACCOUNTS: KeyedMutex<&str> = KeyedMutex::new();
    assert_eq!(crowd(None).await, 6, "without the lock they do");
    assert_eq!(crowd(Some(&ACCOUNTS)).await, 1);
    assert!(ACCOUNTS.is_empty());
}

#[wasm_bindgen_test]
async fn tasks_with_different_keys_run_at_the_same_time() {
    let mutex = KeyedMutex::new();
    let alice = mutex.lock(String::from("alice")).await;
    turn().await;
    let bob = mutex.lock(String::from("bob")).await;
    assert_eq!(mutex.len(), 2);
    assert!(mutex.try_lock("alice".into()).is_none());
    drop((alice, bob));
    assert!(mutex.is_empty());
}

#[wasm_bindgen_test]
async fn waiters_are_served_in_the_order_in_which_they_came() {
    let mutex = Arc::new(KeyedMutex::<u8>::new());
    let served = Rc::new(RefCell::new(Vec::new()));
    let guard = mutex.lock(1).await;
    let tasks = (0..20).map(|id| {
        let (mutex, served) = (mutex.clone(), served.clone());
        async move {
            let _guard = mutex.lock(1).await;
            served.borrow_mut().push(id);
            if id % 3 == 0 {
                turn().await;
            }
        }
    });
    zip(all(tasks), async {
        while mutex.state(&1).waiting < 20 {
            turn().await;
        }
        drop(guard);
    })
    .await;
    assert!(served.borrow().iter().copied().eq(0..20));
}

#[wasm_bindgen_test]
async fn those_who_give_up_change_nothing_for_the_others() {
    let mutex = KeyedMutex::new();
    let guard = mutex.lock(7).await;
    let mut next = Box::pin(mutex.lock(7));
    let mut last = Box::pin(mutex.lock(7));
    {
        let mut granted = pin!(mutex.lock(7));
        let mut context = Context::from_waker(Waker::noop());
        assert!(granted.as_mut().poll(&mut context).is_pending());
        assert!(next.as_mut().poll(&mut context).is_pending());
        assert!(mutex.lock(7).unless(turn()).await.is_err(), "it gives up after a while");
        assert!(last.as_mut().poll(&mut context).is_pending());
        assert_eq!(mutex.state(&7).waiting, 3);
        drop(guard); // gives the key to `granted`, which is dropped here without having been polled
    }
    assert!(mutex.try_lock(7).is_none());
    let guard = next.await;
    assert_eq!(mutex.state(&7).waiting, 1);
    drop(last);
    drop(guard);
    assert!(mutex.is_empty());
}

#[wasm_bindgen_test]
async fn a_task_that_fails_stops_the_queue_and_a_retry_runs() {
    let mutex = KeyedMutex::new();
    let called = Cell::new(false);
    let first = mutex.run_or_stop("order", async || {
        turn().await;
        Err::<(), _>("declined")
    });
    let second = mutex.run("order", async || called.set(true));
    let other = mutex.run("another", async || "shipped");
    let (first, (second, other)) = zip(first, zip(second, other)).await;
    assert_eq!((first, second, other), (Ok(Err("declined")), Err(Stopped), Ok("shipped")));
    assert!(!called.get());
    assert_eq!(mutex.run("order", async || "retried").await, Ok("retried"));
}

#[wasm_bindgen_test]
async fn tickets_keep_their_order_however_they_are_polled() {
    let mutex = Arc::new(KeyedMutex::new());
    let served = Rc::new(RefCell::new(Vec::new()));
    let tickets: Vec<_> = (0..9)
        .filter_map(|id| Some((id, mutex.arc().ticket_if("queue", |now| now.holders + now.waiting < 6)?)))
        .collect();
    assert_eq!(tickets.len(), 6, "the others are rejected");
    let tasks = tickets.into_iter().rev().map(|(id, ticket)| {
        let served = served.clone();
        async move {
            let done = ticket.run(async || {
                served.borrow_mut().push(id);
                yield_now().await;
            });
            assert_eq!(done.await, Ok(()));
        }
    });
    all(tasks).await;
    assert_eq!(*served.borrow(), [0, 1, 2, 3, 4, 5]);
    assert!(mutex.is_empty());
}

#[wasm_bindgen_test]
async fn several_keys_at_once_never_wait_in_a_circle() {
    let mutex = Arc::new(KeyedMutex::<u32>::new());
    let tasks = (0..12).map(|n| {
        let mutex = mutex.clone();
        async move {
            let _guards = mutex.lock_many([n % 3, (n + 1) % 3, (n + 2) % 3]).await;
            turn().await;
        }
    });
    all(tasks).await;
    assert!(mutex.is_empty());
}

#[wasm_bindgen_test]
async fn a_key_that_nobody_uses_takes_no_memory() {
    let mutex = KeyedMutex::<u32>::new();
    let burst = async |start: u32| {
        let guards: Vec<_> = (start..start + 1_000).filter_map(|key| mutex.try_lock(key)).collect();
        assert_eq!(guards.len(), 1_000);
        // One waits for a locked key, and gives up.
        or(async { drop(mutex.lock(start).await) }, yield_now()).await;
    };
    burst(0).await;
    let before = core::arch::wasm32::memory_size::<0>();
    for round in 1..200 {
        burst(round * 1_000).await;
    }
    assert_eq!(core::arch::wasm32::memory_size::<0>(), before, "memory has grown");
    assert!(mutex.is_empty());
}

#[wasm_bindgen_test]
async fn a_task_that_is_dropped_half_way_releases_its_key() {
    let mutex = KeyedMutex::new();
    or(async { mutex.run("key", pending::<()>).await.unwrap_or_default() }, turn()).await;
    assert!(mutex.is_empty());
}

#[wasm_bindgen_test]
async fn one_fetch_serves_all_callers_though_its_promise_is_not_send() {
    let (flights, fetches) = (Rc::new(Flights::new()), Rc::new(Cell::new(0)));
    let caller = |gives_up: bool| {
        let (flights, fetches) = (flights.clone(), fetches.clone());
        async move {
            let fetch = async {
                fetches.set(fetches.get() + 1);
                for _ in 0..3 {
                    turn().await;
                }
                fetches.get()
            };
            let get = async { Some(*flights.get("url", fetch).await) };
            let patience = async {
                turn().await;
                if gives_up { None } else { pending().await }
            };
            let expected = if gives_up { None } else { Some(2) }; // from the fetch of the next caller
            assert_eq!(or(get, patience).await, expected);
        }
    };
    all((0..20).map(|number| caller(number == 0))).await;
    assert!(flights.is_empty());
}
