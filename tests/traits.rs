use async_mutex_lite::*;
#[test]
fn sizes() {
    let m: KeyedMutex<u64> = KeyedMutex::new();
    println!("lock u64 {}", size_of_val(&m.lock(0)));
    let s: KeyedMutex<String> = KeyedMutex::new();
    println!("lock String {}", size_of_val(&s.lock(String::new())));
    println!("run {}", size_of_val(&m.run(0, async || ())));
    println!("guard {}", size_of_val(&m.try_lock(0)));
    println!("mutex {}", size_of_val(&m));
}
