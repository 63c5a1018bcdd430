/** What becomes of the tasks that wait for a key when a task that has it fails: they run, or they are stopped. */
export type ErrorStrategy = "continue" | "stop"

/** Any value, inferred as narrowly as it is written. */
type Value = string | number | bigint | boolean | symbol | object | null | undefined

export interface MutexOptions<S = undefined> {
  /**
   * With `"stop"`, if this task fails, the tasks that wait for its key at that moment are stopped: they never run.
   * Those that come later, a retry for example, do run. Default: `"continue"`
   */
  onError?: ErrorStrategy
  /** What this call returns if its task is stopped. Default: `undefined`, which a task may return, too. */
  ifStopped?: S
}

/**
 * Tasks with the same key run one at a time, in the order of the calls; tasks with different keys run concurrently. Keys
 * are compared as a `Map` compares them: objects by identity, and `NaN` equals itself.
 *
 * A task that awaits another call with its own key deadlocks.
 */
export interface Mutex<K = unknown> {
  /**
   * Runs a task when it has the key, in the asynchronous context of this call, and returns what it returns, or throws
   * what it throws. A task is a function, plain or async. Arguments of other types are a `TypeError`, and change nothing.
   */
  <T, S extends Value = undefined>(key: K, task: () => PromiseLike<T> | T, options?: MutexOptions<S> | null): Promise<T | S>

  /** Stops the tasks that wait for a key, but not the one that runs, and returns how many. */
  stop(key: K): number

  /** The keys that are locked, and how many tasks wait for each. */
  locked(): { key: K; waiting: number }[]
}

/** A mutex with keys of its own. */
export function createMutex<K = unknown>(): Mutex<K>

/** One that all modules share. (A worker has its own.) */
export const mutex: Mutex
