// What the binding promises, in node and in a browser: `cases(binding)` has a function for each promise, which throws if it
// is broken.

const same = (one, two) => Object.is(one, two) || (Array.isArray(one) && Array.isArray(two) && one.length === two.length &&
  one.every((item, index) => same(item, two[index])))
const show = (value) => (Array.isArray(value) ? `[${value.map(show).join(", ")}]` : typeof value === "string" ? JSON.stringify(value) : String(value))
function equal(actual, expected, what = "") {
  if (!same(actual, expected)) throw new Error(`${show(actual)}, expected ${show(expected)} ${what}`)
}

// A turn of the event loop: every promise that can be settled has been.
const turn = () => new Promise((done) => {
  const { port1, port2 } = new MessageChannel()
  port2.onmessage = () => done(port2.close())
  port1.postMessage(null)
})

// A task that runs until it is told to end.
function task(begins = () => {}) {
  const run = () => new Promise((resolve, reject) => {
    Object.assign(run, { resolve, reject })
    begins()
  })
  return run
}

async function rejects(promise, type) {
  if (!(promise instanceof Promise)) throw new Error("it is no promise")
  const error = await promise.then((value) => { throw new Error(`fulfilled with ${show(value)}`) }, (error) => error)
  if (!(error instanceof type)) throw error
}

// No two of these are equal. Calls, so that objects are new.
const differentKeys = () => [
  "alice", "", 1, "1", -1, 1.5, Infinity, 1n, "1n", true, "true", false, null, "null", undefined, "undefined", NaN, "NaN", 0, 0n, "0",
  Symbol("alice"), Symbol("alice"), Symbol.for("alice"), {}, {}, [], [], () => {}, Object.create(null), new Proxy({}, {}),
  { toString() { throw new Error("nothing asks for it") } }, 2 ** 53, 2n ** 64n, 2n ** 64n + 1n, "\ud83d", "\ude00", "\ud83d\ude00", "\ufffd", "\0",
]

export const cases = ({ mutex, createMutex }) => ({
  async "tasks with the same key run one at a time, in the order of the calls; those with others run at the same time"() {
    const mutex = createMutex()
    const log = []
    const begin = (key, name) => mutex(key, async () => {
      log.push(`${name} begins`)
      await turn()
      log.push(`${name} ends`)
    })
    await Promise.all([begin("alice", 1), begin("bob", 2), begin("alice", 3), begin("alice", 4)])
    equal(log.slice(0, 2), ["1 begins", "2 begins"])
    equal(log.filter((line) => !line.startsWith("2")), ["1 begins", "1 ends", "3 begins", "3 ends", "4 begins", "4 ends"])
    equal(mutex.locked(), [])
  },

  async "a call returns what its task does, and throws what it throws, whatever that is"() {
    const values = [0, -0, NaN, "", false, null, undefined, 1n, Symbol("value"), {}, [], () => {}]
    for (const value of values) {
      equal(await mutex("key", () => value), value)
      equal(await mutex("key", async () => value), value)
      equal(await mutex("key", () => ({ then: (resolve) => resolve(value) })), value, "from a thenable")
      const throwing = [
        () => { throw value },
        async () => { throw value },
        () => ({ then() { throw value } }),
        () => ({ get then() { throw value } }),
        () => ({ then: (_, reject) => reject(value) }),
      ]
      for (const task of throwing) {
        const queued = mutex("key", task).then(() => { throw new Error("fulfilled") }, (error) => equal(error, value))
        const behind = mutex("key", () => "runs")
        await queued
        equal(await behind, "runs")
      }
    }
    equal(await mutex("key", () => ({ then(resolve, reject) { resolve(1), resolve(2), reject(3) } })), 1, "it is settled once")
    equal(mutex.locked(), [])
  },

  async "a task runs without arguments, and not before the call has returned"() {
    let called
    const call = mutex("key", function (...parameters) { called = [this, parameters.length] })
    equal(called, undefined)
    await call
    equal(called, [undefined, 0])
  },

  async "two keys are one only if a Map takes them for one"() {
    const mutex = createMutex()
    const keys = differentKeys()
    const tasks = keys.map(() => task())
    const calls = keys.map((key, index) => mutex(key, tasks[index]))
    await turn()
    equal(tasks.filter((task) => task.resolve).length, keys.length, "run at the same time")
    equal(mutex.locked().map(({ key }) => key), keys)
    equal(mutex.locked().map(({ waiting }) => waiting), keys.map(() => 0))

    const again = keys.map((key) => (key === 0 ? -0 : typeof key === "bigint" ? BigInt(String(key)) : key))
    const behind = again.map((key) => mutex(key, () => "ran"))
    equal(mutex.locked().map(({ waiting }) => waiting), keys.map(() => 1))
    equal(again.map((key) => mutex.stop(key)), keys.map(() => 1))
    equal(await Promise.all(behind), keys.map(() => undefined))
    equal(differentKeys().filter((key) => Object(key) === key).map((key) => mutex.stop(key)).some(Boolean), false, "others like them")
    tasks.forEach((task) => task.resolve())
    await Promise.all(calls)
    equal(mutex.locked(), [])
  },

  async "arguments of other types are a TypeError, and change nothing"() {
    const mutex = createMutex()
    const first = task()
    const running = mutex("key", first)
    for (const task of [undefined, null, 42, "task", {}, Promise.resolve(), Symbol("task")]) await rejects(mutex("key", task), TypeError)
    for (const options of [0, 1n, "stop", true, false, Symbol("stop")]) await rejects(mutex("key", () => 1, options), TypeError)
    for (const onError of ["Stop", "", null, 0, true, {}, Symbol("stop")]) await rejects(mutex("key", () => 1, { onError }), TypeError)
    await rejects(mutex("key", () => 1, { get onError() { throw new RangeError() } }), RangeError)
    await rejects(mutex("key", () => 1, { get onError() { mutex("key", () => 1); return "Stop" } }), TypeError)
    equal(mutex.stop("key"), 1)
    await rejects(mutex(), TypeError)
    await rejects(mutex("another key"), TypeError)
    equal(mutex.locked().map(({ key, waiting }) => [key, waiting]), [["key", 0]])

    const queued = [undefined, null, {}, { onError: undefined }, Object.create({ onError: "stop" }), () => {}].map((options) => mutex("key", () => "ran", options))
    first.resolve("first")
    equal(await Promise.all([running, ...queued]), ["first", "ran", "ran", "ran", "ran", "ran", "ran"])
    equal(mutex.stop(), 0)
    equal(mutex.locked(), [])
  },

  async "a task that fails stops those that wait, if it says so, and no other"() {
    for (const fails of [() => { throw undefined }, async () => { throw null }, () => ({ then: (_, reject) => reject(0) })]) {
      for (const onError of ["stop", "continue", undefined]) {
        const failed = mutex("key", fails, { onError }).then(() => "fulfilled", () => "failed")
        const waits = [mutex("key", () => "ran"), mutex("key", () => "ran", { onError: "stop" })]
        const another = mutex("another key", () => "ran")
        const retried = failed.then(() => mutex("key", () => "a retry ran"))
        const expected = onError === "stop" ? [undefined, undefined] : ["ran", "ran"]
        equal(await Promise.all([failed, ...waits, another, retried]), ["failed", ...expected, "ran", "a retry ran"])
      }
    }
    equal(await Promise.all([mutex("key", () => "succeeds", { onError: "stop" }), mutex("key", () => "ran")]), ["succeeds", "ran"])
    equal(mutex.locked(), [])
  },

  async "a caller can tell a task that was stopped from one that returned undefined"() {
    const STOPPED = Symbol("stopped")
    for (const ifStopped of [STOPPED, null, false, "skipped", undefined]) {
      const running = task()
      const calls = [running, () => undefined].map((task) => mutex("key", task, { ifStopped }))
      await turn()
      equal(mutex.stop("key"), 1)
      running.resolve(undefined)
      equal(await Promise.all(calls), [undefined, ifStopped])
    }
  },

  async "a stop reaches the tasks that wait, in their order, and neither the one that runs nor later ones"() {
    const mutex = createMutex()
    const [first, ended] = [task(), []]
    const call = (name, task = () => `${name} ran`) => mutex("key", task, { ifStopped: `${name} stopped` }).then((end) => ended.push(end))
    const calls = [call("first", first), call("second"), call("third")]
    equal(mutex.stop("another key"), 0)
    equal(mutex.stop("key"), 2)
    equal(mutex.stop("key"), 0)
    calls.push(call("later"))
    await turn()
    first.resolve("first ran")
    await Promise.all(calls)
    equal(ended, ["second stopped", "third stopped", "first ran", "later ran"])
    equal([mutex.stop("key"), mutex.locked()], [0, []])
  },

  async "a task may queue another for its key; if it waits for that, both wait until a stop"() {
    let inner
    const outer = mutex("key", () => { inner = mutex("key", () => "inner"); return "outer" })
    equal([await outer, await inner], ["outer", "inner"])

    const deadlock = mutex("key", async () => [await mutex("key", () => "inner", { ifStopped: "stopped" }), "outer"])
    await turn()
    equal(mutex.locked().map(({ key, waiting }) => [key, waiting]), [["key", 1]])
    equal(mutex.stop("key"), 1)
    equal(await deadlock, ["stopped", "outer"])
  },

  async "each mutex has keys of its own"() {
    const [one, two, running] = [createMutex(), createMutex(), task()]
    const first = one("key", running)
    equal(await two("key", () => "ran"), "ran")
    equal(await mutex("key", () => "ran"), "ran")
    equal([one.locked().length, two.locked().length, two.stop("key")], [1, 0, 0])
    running.resolve("first")
    equal(await first, "first")
  },

  async "a hundred thousand tasks wait for a key, and run or are stopped"() {
    const [running, many] = [task(), 100_000]
    const queue = () => [mutex("key", running), ...Array.from({ length: many }, (_, index) => mutex("key", () => index))]
    let calls = queue()
    await turn()
    running.resolve(-1)
    let ends = await Promise.all(calls)
    equal(ends.every((end, index) => end === index - 1), true)
    calls = queue()
    await turn()
    equal(mutex.stop("key"), many)
    running.resolve(-1)
    ends = await Promise.all(calls)
    equal(ends.every((end, index) => end === (index ? undefined : -1)), true)
    equal(mutex.locked(), [])
  },

  // The model is an array of calls for each key, of which the first runs.
  async "scripts at random end as a model says"() {
    let seed = 7
    const random = (below) => ((seed = (seed * 48271) % 0x7fffffff), seed % below)
    for (let script = 0; script < 200; script++) {
      const [mutex, keys, queues] = [createMutex(), differentKeys(), new Map()]
      const [happened, expected] = [[], []]
      const stop = (queue) => queue.splice(1).map(({ id }) => expected.push(`${id} is stopped`)).length
      for (let id = 0; id < 40 || queues.size; id++) {
        const key = keys[(script + random(3)) % keys.length]
        const queue = queues.get(key) ?? []
        const what = id < 40 ? random(6) : 5 // at last, all that run come to their end
        if (what < 3) {
          const [run, onError] = [task(() => happened.push(`${id} runs`)), ["stop", "continue"][random(2)]]
          const call = mutex(key, run, { onError, ifStopped: "is stopped" }).catch((error) => error)
          call.then((end) => happened.push(`${id} ${end}`))
          queues.set(key, queue)
          if (queue.push({ id, run, onError }) === 1) expected.push(`${id} runs`)
        } else if (what === 3) {
          equal(mutex.stop(key), stop(queue))
        } else if (queue.length) {
          const [{ id, run, onError }] = queue
          const fails = random(2) === 1
          fails ? run.reject("fails") : run.resolve("succeeds")
          expected.push(`${id} ${fails ? "fails" : "succeeds"}`)
          if (fails && onError === "stop") stop(queue)
          queue.shift()
          if (queue.length) expected.push(`${queue[0].id} runs`)
          else queues.delete(key)
        }
        await turn()
        equal(happened.toSorted(), expected.toSorted(), `in script ${script}`)
        equal(mutex.locked().map(({ key, waiting }) => [key, waiting]), [...queues].map(([key, { length }]) => [key, length - 1]))
      }
    }
  },
})

// Runs them one after another, and returns their names.
export async function run(binding) {
  const all = Object.entries(cases(binding))
  for (const [name, promise] of all) {
    await promise().catch((error) => { throw Object.assign(error, { message: `${name}: ${error.message}` }) })
  }
  return all.map(([name]) => name)
}
