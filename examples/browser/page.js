import { createMutex, mutex } from "./mutex.js"

const $ = (selector, parent = document) => parent.querySelector(selector)
const pause = (ms) => new Promise((done) => setTimeout(done, ms))
// Plays once, when first seen, unless the reader has asked for less motion.
const playOnceSeen = (element, play) => {
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) return
  const eye = new IntersectionObserver((sightings) => {
    if (!sightings.some(({ isIntersecting }) => isIntersecting)) return
    eye.disconnect()
    play()
  }, { threshold: 0.3 })
  eye.observe(element)
}
const element = (html) => Object.assign(document.createElement("template"), { innerHTML: html.trim() }).content.firstChild

// ---- One queue for each key

const KEYS = { alice: 228, bob: 168, carol: 38, dave: 318 }
const PAST = 12_000 // milliseconds that a lane shows
const lanes = {}
const lock = createMutex()
let number = 0

class Lane {
  tasks = [] // what the lane draws: { from, start, end, state }
  inside = 0
  most = 0

  constructor(key, hue) {
    this.key = key
    this.element = element(`
      <div class="lane" data-key="${key}" style="--hue: ${hue}" data-most="0" data-done="0" data-failed="0" data-stopped="0">
        <b>${key}<small></small></b>
        <div class="slot"></div>
        <div class="queue"></div>
        <div class="buttons">
          <button data-do="add">Add a task</button>
          <button data-do="fail" title='with { onError: "stop" }'>Add one that fails</button>
          <button data-do="stop">Stop the queue</button>
        </div>
        <canvas></canvas>
      </div>`)
    $("#lanes").append(this.element)
    this.canvas = $("canvas", this.element)
    $("[data-do=add]", this.element).onclick = () => this.add()
    $("[data-do=fail]", this.element).onclick = () => this.add({ fails: true })
    $("[data-do=stop]", this.element).onclick = () => lock.stop(key)
  }

  // Queues a task with the lock, and follows what becomes of it.
  async add({ fails = false } = {}) {
    const time = 500 + Math.random() * 1_100
    const task = { from: performance.now(), state: "waiting" }
    const chip = element(`<i class="task" style="--time: ${time}ms">${++number}</i>`)
    if (fails) chip.dataset.fails = ""
    this.tasks.push(task)
    const show = (state) => {
      task.state = chip.dataset.state = state
      $(state === "running" ? ".slot" : ".queue", this.element).append(chip)
    }
    show("waiting")

    const work = async () => {
      task.start = performance.now()
      this.element.dataset.most = this.most = Math.max(this.most, ++this.inside)
      show("running")
      await pause(time)
      this.inside--
      if (fails) throw new Error("failed")
      return "done"
    }
    const options = { onError: fails ? "stop" : "continue", ifStopped: "stopped" }
    task.state = await lock(this.key, work, options).catch(() => "failed")

    task.end = performance.now()
    this.element.dataset[task.state]++
    if (task.state !== "stopped") return chip.remove()
    chip.dataset.state = "stopped"
    setTimeout(() => chip.remove(), 700)
  }

  // The last seconds: when each task waited and ran.
  draw(now) {
    const { canvas } = this
    const width = (canvas.width = canvas.clientWidth * devicePixelRatio)
    const height = (canvas.height = canvas.clientHeight * devicePixelRatio)
    const context = canvas.getContext("2d")
    const style = getComputedStyle(this.element) // the reader may change the theme at any time
    const colour = (name) => style.getPropertyValue(`--${name}`)
    const x = (time) => width * (1 - (now - time) / PAST)
    this.tasks = this.tasks.filter((task) => !(task.end < now - PAST))
    for (const { start, end = now, state } of this.tasks) {
      if (!start) continue
      context.fillStyle = colour(state === "failed" ? "bad" : "colour")
      context.globalAlpha = state === "running" ? 0.65 : 1
      context.beginPath()
      context.roundRect(x(start) + 1, height * 0.2, Math.max(2, x(end) - x(start) - 2), height * 0.6, height * 0.15)
      context.fill()
    }
    context.globalAlpha = 1
    context.strokeStyle = colour("soft")
    for (const { end, state } of this.tasks) {
      if (state !== "stopped") continue
      const half = height * 0.22
      const centre = x(end) + 2 * half // beside the bar of the task that stopped it
      context.beginPath()
      for (const slope of [1, -1]) {
        context.moveTo(centre - half, height / 2 - half * slope)
        context.lineTo(centre + half, height / 2 + half * slope)
      }
      context.lineWidth = devicePixelRatio * 1.4
      context.stroke()
    }
  }
}

for (const [key, hue] of Object.entries(KEYS)) lanes[key] = new Lane(key, hue)

$("#burst").onclick = () => {
  const keys = Object.keys(KEYS)
  for (let n = 0; n < 16; n++) lanes[keys[Math.floor(Math.random() * keys.length)]].add()
}

// Starts with some tasks of every kind.
playOnceSeen($("#lanes"), () => {
  const begin = { alice: "....", bob: "...", carol: ".!..", dave: ".." } // ! fails
  for (const [key, tasks] of Object.entries(begin)) for (const task of tasks) lanes[key].add({ fails: task === "!" })
})

function frame(now) {
  const locked = lock.locked()
  for (const [key, lane] of Object.entries(lanes)) {
    const state = locked.find((state) => state.key === key)
    $("small", lane.element).textContent = state ? `locked, ${state.waiting} waiting` : "free"
    lane.draw(now)
  }
  $("#busy").value = locked.length
  requestAnimationFrame(frame)
}
requestAnimationFrame(frame)

// ---- The same race, twice

const TASKS = 6
const THINKS = 240

async function race(figure, guard) {
  const list = $("ol", figure)
  const output = $("output", figure)
  const started = performance.now()
  // In percent of the row; a machine may be so slow that a bar would reach its label.
  const place = () => Math.min(100, (100 * (performance.now() - started)) / (THINKS * (TASKS + 0.6)))
  let balance = TASKS * 10
  output.value = balance
  delete figure.dataset.end
  $("p", figure).textContent = "running…"
  list.replaceChildren()

  const withdraw = async (row) => {
    const read = balance
    const bar = element(`<span style="left: ${place()}%; --hue: ${196 + row * 22}"></span>`)
    const label = element(`<small>read ${read}</small>`)
    list.children[row].append(bar, label)
    const grow = setInterval(() => (bar.style.width = `${place() - parseFloat(bar.style.left)}%`), 16)
    await pause(THINKS)
    clearInterval(grow)
    output.value = balance = read - 10
    label.textContent = `${read} → ${balance}`
  }
  for (let row = 0; row < TASKS; row++) list.append(document.createElement("li"))
  await Promise.all(Array.from({ length: TASKS }, (_, row) => guard(() => withdraw(row))))

  figure.dataset.end = balance === 0 ? "right" : "wrong"
  $("p", figure).textContent = balance === 0 ? "Nothing was lost." : `${TASKS} tasks took 10 each; ${balance} is left.`
}

$("#race").onclick = async ({ target }) => {
  target.disabled = true
  await Promise.all([
    race($("#without"), (task) => task()),
    race($("#with"), (task) => mutex("account", task)),
  ])
  target.disabled = false
}

playOnceSeen($("#without").parentElement, () => $("#race").click())

// ---- From JavaScript

function show(value, inside = false) {
  if (typeof value === "string" && inside) return JSON.stringify(value)
  if (Array.isArray(value)) return `[${value.map((item) => show(item, true)).join(", ")}]`
  if (value === null || typeof value !== "object" || value instanceof Error) return String(value)
  return `{ ${Object.entries(value).map(([name, item]) => `${name}: ${show(item, true)}`).join(", ")} }`
}

$("#run").onclick = async () => {
  const mutex = createMutex() // so that what an earlier run has left locked does not matter
  const log = (...values) => void ($("#log").textContent += `${values.map((value) => show(value)).join("  ")}\n`)
  $("#log").textContent = ""
  const AsyncFunction = (async () => {}).constructor
  try {
    await new AsyncFunction("mutex", "createMutex", "log", $("#code").value)(mutex, createMutex, log)
  } catch (error) {
    log(error)
  }
}

$("#run").click()

// ---- What the lock takes on its way here, if the server compresses it

async function gzip(file) {
  const { body } = await fetch(file)
  return (await new Response(body.pipeThrough(new CompressionStream("gzip"))).arrayBuffer()).byteLength
}

const [wasm, script] = await Promise.all(["mutex.wasm", "mutex.js"].map(gzip))
$("#size").textContent = `This is the Rust crate in WebAssembly: ${((wasm + script) / 1000).toFixed(1)} KB with gzip, its JavaScript included.`
document.body.dataset.ready = ""
