// The lock as a function, in the shape of the original async-mutex-lite:
//   await mutex("key", async () => …, { onError: "stop" })
import init, { KeyedMutex } from "./pkg/browser.js"

await init()

export function createMutex() {
  const keyed = new KeyedMutex()
  const mutex = (key, task, options) => keyed.run(key, task, options)
  return Object.assign(mutex, {
    stop: (key) => keyed.stop(key),
    locked: () => keyed.locked(),
  })
}

export const mutex = createMutex()
