// Every form of a call, with the types that it must have: `tsc --noEmit --strict`.
import { createMutex, mutex, type ErrorStrategy, type Mutex, type MutexOptions } from "async-mutex-lite-wasm"

type Same<A, B> = (<T>() => T extends A ? 1 : 2) extends <T>() => T extends B ? 1 : 2 ? true : false
function is<Expected>() {
  return <Actual>(_: Actual, ..._same: Same<Actual, Expected> extends true ? [] : [never]) => {}
}

// The forms of the original.
is<Promise<number | undefined>>()(mutex("key", () => 42))
is<Promise<number | undefined>>()(mutex("key", async () => 42))
is<Promise<string | undefined>>()(mutex<string>("key", async () => "hello"))
is<Promise<{ name: string } | null | undefined>>()(mutex("key", async (): Promise<{ name: string } | null> => null))
is<Promise<void | undefined>>()(mutex("key", () => {}))
const strategy: ErrorStrategy = "stop"
const options: MutexOptions = { onError: strategy }
is<Promise<number | undefined>>()(mutex("key", () => 42, options))
is<Promise<number | undefined>>()(mutex("key", () => 42, { onError: "continue" }))
is<Promise<number | undefined>>()(mutex("key", () => 42, undefined))
is<Promise<number | undefined>>()(mutex("key", () => 42, null))
is<Promise<number | undefined>>()(mutex("key", (): PromiseLike<number> => Promise.resolve(42)))

// What a task that was stopped is worth.
const STOPPED: unique symbol = Symbol("stopped")
is<Promise<number | typeof STOPPED>>()(mutex("key", () => 42, { ifStopped: STOPPED }))
is<Promise<number | "skipped">>()(mutex("key", async () => 42, { onError: "stop", ifStopped: "skipped" }))
is<Promise<number | null>>()(mutex("key", () => 42, { ifStopped: null }))
is<Promise<number | boolean>>()(mutex<number, boolean>("key", () => 42, { ifStopped: true }))

// Keys of any type, or of one.
for (const key of [1, 1n, true, null, undefined, Symbol(), {}, [], () => {}]) void mutex(key, () => {})
const accounts: Mutex<bigint> = createMutex<bigint>()
is<Promise<string | undefined>>()(accounts(7n, () => "charged"))
is<{ key: bigint; waiting: number }[]>()(accounts.locked())
is<number>()(accounts.stop(7n))
const own = createMutex()
is<Mutex<unknown>>()(own)
is<number>()(mutex.stop("key"))
is<{ key: unknown; waiting: number }[]>()(mutex.locked())

// @ts-expect-error
void accounts("alice", () => {})
// @ts-expect-error
void accounts.stop(7)
// @ts-expect-error
void mutex("key")
// @ts-expect-error
void mutex("key", Promise.resolve(42))
// @ts-expect-error
void mutex("key", (argument: string) => argument)
// @ts-expect-error
void mutex("key", () => 42, "stop")
// @ts-expect-error
void mutex("key", () => 42, { onError: "Stop" })
// @ts-expect-error
void mutex("key", () => 42, { onerror: "stop" })
// @ts-expect-error
is<Promise<number>>()(mutex("key", () => 42))
// @ts-expect-error
is<Promise<any>>()(mutex("key", () => 42))
