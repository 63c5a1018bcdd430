// What the package promises where it is installed, in node: `node --expose-gc node.mjs`
import assert from "node:assert/strict"
import { AsyncLocalStorage } from "node:async_hooks"
import { readFile } from "node:fs/promises"
import { setImmediate as turn } from "node:timers/promises"

import * as binding from "async-mutex-lite-wasm"
import { run } from "./cases.js"

const { createMutex } = binding

async function eachTaskRunsInTheContextOfItsOwnCaller() {
  const [mutex, user, seen] = [createMutex(), new AsyncLocalStorage(), []]
  const see = (what) => seen.push(`${user.getStore()} ${what}`)
  const call = (name, end = () => "ends") => user.run(name, async () => {
    const task = async () => {
      see("begins")
      await turn()
      see("continues")
      return end()
    }
    see(await mutex("key", task, { onError: "stop", ifStopped: "is stopped" }).catch((error) => error))
  })

  const thenable = () => ({ then: (resolve) => (see("is asked for its end"), resolve("ends")) })
  await Promise.all([call("alice"), call("bob", thenable), call("carol")])
  assert.deepEqual(seen.splice(0).sort(), [
    "alice begins", "alice continues", "alice ends",
    "bob begins", "bob continues", "bob ends", "bob is asked for its end",
    "carol begins", "carol continues", "carol ends",
  ])

  await Promise.all([call("alice", () => { throw "fails" }), call("bob"), call("carol")])
  assert.deepEqual(seen.splice(0).sort(), ["alice begins", "alice continues", "alice fails", "bob is stopped", "carol is stopped"])

  const calls = [call("alice"), call("bob")]
  user.run("dave", () => assert.equal(mutex.stop("key"), 1))
  await Promise.all(calls)
  assert.deepEqual(seen.sort(), ["alice begins", "alice continues", "alice ends", "bob is stopped"])
}

async function keysAndTasksAreCollected() {
  const mutex = createMutex()
  let end
  const another = mutex("another key", () => new Promise((resolve) => (end = resolve)))
  const refs = []
  const call = async (onError) => {
    const [key, task] = [{}, () => { throw new Error("planned") }]
    refs.push(new WeakRef(key), new WeakRef(task))
    await Promise.allSettled([mutex(key, task, { onError }), mutex(key, () => key, { ifStopped: key })])
  }
  await call("continue")
  await call("stop")
  for (let round = 0; round < 20 && refs.some((ref) => ref.deref()); round++) {
    await turn()
    globalThis.gc()
  }
  assert.deepEqual(refs.map((ref) => ref.deref()), refs.map(() => undefined))
  end()
  await another
}

async function memoryOfWebAssemblyIsUsedAgain() {
  const file = new URL("mutex.wasm", import.meta.resolve("async-mutex-lite-wasm"))
  const { instance: { exports: wasm } } = await WebAssembly.instantiate(await readFile(file))
  let bytes
  for (let key = 0; key < 1_000; key++) {
    const places = Array.from({ length: 1_000 }, () => wasm.queue(key))
    assert.equal(wasm.waiting(key), 999)
    const stops = key % 2
    places.forEach((place, index) => {
      assert.equal(wasm.ended(), place)
      assert.equal(wasm.holds(place), Number(!stops || index === 0))
      if (!stops || index === 0) wasm.leave(place, stops)
    })
    assert.equal(wasm.ended(), -1)
    assert.equal(wasm.waiting(key), -1)
    bytes ??= wasm.memory.buffer.byteLength
  }
  assert.equal(wasm.memory.buffer.byteLength, bytes, "it has grown")
}

const { length } = await run(binding)
await eachTaskRunsInTheContextOfItsOwnCaller()
await keysAndTasksAreCollected()
await memoryOfWebAssemblyIsUsedAgain()
console.log(`the package keeps its ${length + 3} promises, in node ${process.version}`)
