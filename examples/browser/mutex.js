// The lock as a function, in the shape of the original async-mutex-lite: mutex.d.ts says what it promises. When
// `.ci/page --build` has made mutex.wasm, npm can install this directory by its path.
const file = new URL("mutex.wasm", import.meta.url)
const { instance } = file.protocol === "file:"
  ? await WebAssembly.instantiate(process.getBuiltinModule("node:fs").readFileSync(file))
  : await WebAssembly.instantiateStreaming(fetch(file))
const wasm = instance.exports

let count = 0 // of the keys that have been locked: each has a number while it is
const waiters = new Map() // what to call when the wait of a place has ended

function callWaiters() {
  for (let place; (place = wasm.ended()) >= 0;) {
    waiters.get(place)()
    waiters.delete(place)
  }
}

export function createMutex() {
  const locked = new Map() // the numbers of the keys, which are compared as a Map compares them

  async function mutex(key, task, options) {
    if (typeof task !== "function") throw new TypeError("the task is not a function")
    options ??= {}
    if (Object(options) !== options) throw new TypeError("the options are not an object")
    const { onError = "continue", ifStopped } = options
    if (onError !== "continue" && onError !== "stop") throw new TypeError('onError is neither "continue" nor "stop"')

    const number = locked.get(key) ?? count++
    locked.set(key, number)
    const place = wasm.queue(number)
    const wait = new Promise((ended) => waiters.set(place, ended))
    callWaiters()
    await wait // so that the task runs in the context of its own caller
    if (!wasm.holds(place)) return ifStopped

    let stops = onError === "stop"
    try {
      const value = await task()
      stops = false
      return value
    } finally {
      wasm.leave(place, stops)
      if (wasm.waiting(number) < 0) locked.delete(key)
      callWaiters()
    }
  }

  mutex.stop = (key) => {
    const stopped = wasm.stop(locked.get(key) ?? -1)
    callWaiters()
    return stopped
  }
  mutex.locked = () => Array.from(locked, ([key, number]) => ({ key, waiting: wasm.waiting(number) }))
  return mutex
}

export const mutex = createMutex()
