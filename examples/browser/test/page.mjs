// Clicks through the page in a real browser, and tries the binding there: node page.mjs CHROMIUM DIRECTORY, where
// playwright-core can be found from the working directory, and the directory is for screenshots. `.ci/page` calls it.
import assert from "node:assert/strict"
import { readFile } from "node:fs/promises"
import { createServer } from "node:http"
import { createRequire } from "node:module"
import { extname } from "node:path"
import { gzipSync } from "node:zlib"

const [executablePath, screenshots] = process.argv.slice(2)
const { chromium } = createRequire(`${process.cwd()}/`)("playwright-core")

const types = { ".html": "text/html", ".js": "text/javascript", ".css": "text/css", ".wasm": "application/wasm" }
const read = (path) => readFile(new URL(`..${path}`, import.meta.url))
const server = createServer(async ({ url }, response) => {
  const path = url === "/" ? "/index.html" : url
  try {
    const body = await read(path)
    response.writeHead(200, { "content-type": types[extname(path)] ?? "text/plain" }).end(body)
  } catch {
    response.writeHead(404).end()
  }
})
await new Promise((done) => server.listen(0, "127.0.0.1", done))

const browser = await chromium.launch({
  executablePath,
  args: ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking", "--disable-component-update", "--disable-sync"],
})
const KEYS = ["alice", "bob", "carol", "dave"]
const troubles = []
// The page as a reader with these preferences sees it.
async function open({ width, clock, ...likes }) {
  const page = await browser.newPage({ viewport: { width, height: 1180 }, ...likes })
  page.setDefaultTimeout(200_000)
  if (clock !== undefined) await page.clock.install({ time: clock })
  page.on("pageerror", (error) => troubles.push(error))
  page.on("console", (message) => message.type() === "error" && troubles.push(message.text()))
  await page.goto(`http://127.0.0.1:${server.address().port}/`)
  await page.waitForSelector("body[data-ready]")
  return page
}
const counts = (page) => page.locator(".lane").evaluateAll((lanes) =>
  lanes.map(({ dataset: { done, failed, stopped } }) => [done, failed, stopped].join(" ")).join(", "))
const frames = (page) => page.evaluate(() =>
  new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done))))

try {
  // This page's clock stands still until `pass`: what is seen does not depend on how fast it is looked at. A task takes 500
  // to 1,600 ms.
  const page = await open({ width: 1180, reducedMotion: "reduce", clock: 0 })
  await page.clock.pauseAt(24 * 3600 * 1000)
  const pass = (ms) => page.clock.runFor(ms)

  // For a reader who has asked for less motion, nothing moves by itself.
  await pass(1_000)
  assert.equal(await page.locator(".task, figure li").count(), 0)

  const lane = (key) => page.locator(`.lane[data-key=${key}]`)
  // Several at once, before anything else can happen.
  const click = (key, ...whats) =>
    lane(key).evaluate((lane, whats) => whats.forEach((what) => lane.querySelector(`[data-do=${what}]`).click()), whats)
  // How many are done, failed, and stopped; and how many ran at the same time, at most.
  const ended = (key) => lane(key).evaluate(({ dataset: { done, failed, stopped, most } }) => [done, failed, stopped, most].join(" "))
  const states = () => page.locator(".lane small").allTextContents()

  // A queue for each key: one of alice's runs and three wait, while one of bob's runs too.
  await click("alice", "add", "add", "add")
  await lane("alice").locator("[data-do=add]").click()
  await click("bob", "add", "add")
  await pass(100)
  assert.deepEqual(await states(), ["locked, 3 waiting", "locked, 1 waiting", "free", "free"])
  assert.equal(await page.locator("#busy").textContent(), "2")
  await pass(6_400)
  assert.equal(await ended("alice"), "4 0 0 1")
  assert.equal(await ended("bob"), "2 0 0 1")

  // A task that fails stops those behind it, and a later one is served.
  await click("carol", "fail", "add", "add", "add")
  await pass(1_700)
  assert.equal(await ended("carol"), "0 1 3 1")
  await click("carol", "add")
  await pass(1_700)
  assert.equal(await ended("carol"), "1 1 3 1")

  // Stopped by the button: the running task continues.
  await click("dave", "add", "add", "add", "stop")
  await pass(100)
  assert.equal(await ended("dave"), "0 0 2 1")
  await pass(1_700)
  assert.equal(await ended("dave"), "1 0 2 1")
  assert.deepEqual(await states(), ["free", "free", "free", "free"])

  // The race.
  await page.click("#race")
  await pass(3_000)
  assert.equal(await page.locator("#race:enabled").count(), 1)
  const balances = await page.locator("figure output").allTextContents()
  assert.equal(balances[1], "0", "with the lock nothing is lost")
  assert.equal(balances[0], "50", "without it all but one of the withdrawals are lost")

  // The README's examples.
  await page.click("#run")
  await page.waitForFunction(() => document.querySelector("#log").textContent.includes("42"))
  const lines = (await page.locator("#log").textContent()).trim().split("\n")
  assert.deepEqual(lines, [
    "Error: failed",
    "undefined  this task still runs",
    "Error: failed",
    '[{ status: "fulfilled", value: undefined }, { status: "fulfilled", value: undefined }]',
    "42",
  ])

  // The size that the page shows. (No two programs compress in the same way.)
  const [, size] = (await page.locator("#size").textContent()).match(/: ([\d.]+) KB with gzip/)
  const files = await Promise.all(["/mutex.wasm", "/mutex.js"].map(read))
  const expected = files.reduce((sum, file) => sum + gzipSync(file).length, 0) / 1000
  assert.ok(Math.abs(size - expected) < 0.2, `the page shows ${size} KB, and it is ${expected}`)

  // What the binding promises.
  const promises = await page.evaluate(async () => {
    const [{ run }, binding] = await Promise.all([import("/test/cases.js"), import("/mutex.js")])
    return (await run(binding)).length
  })

  // A screenshot while all keys are busy, and the queue of carol has just been stopped.
  for (const key of KEYS) await click(key, key === "carol" ? "fail" : "add", "add", "add", "add")
  await page.click("#burst")
  await pass(100)
  assert.equal(await page.locator(".slot .task").count(), 4)
  while (await page.locator(".lane[data-key=carol] .task[data-state=stopped]").count() === 0) await pass(100)
  await page.screenshot({ path: `${screenshots}/busy.png`, fullPage: true })
  await pass(35_000)
  assert.equal(await page.locator("#busy").textContent(), "0")
  for (const key of KEYS) assert.match(await ended(key), / 1$/, key)
  await page.close()

  // For all other readers each part plays by itself, when it is first seen, and only then; on a screen of any width,
  // with nothing cut off, in the reader's theme.
  const screens = [["phone", 360], ["desktop", 1200]].flatMap((screen) => [[...screen, "dark"], [...screen, "light"]])
  await Promise.all(screens.map(async ([device, width, colorScheme]) => {
    const page = await open({ width, colorScheme })
    await page.locator("#without").scrollIntoViewIfNeeded()
    await page.waitForSelector("figure[data-end=wrong] + figure[data-end=right]")
    await page.evaluate(() => scrollTo(0, 0))
    const played = "4 0 0, 3 0 0, 1 1 2, 2 0 0"
    await page.waitForFunction((played) => played === [...document.querySelectorAll(".lane")].map(
      ({ dataset: { done, failed, stopped } }) => [done, failed, stopped].join(" ")).join(", "), played)
    await page.screenshot({ path: `${screenshots}/${device}-${colorScheme}.png`, fullPage: true })
    await page.locator("#without").scrollIntoViewIfNeeded()
    await page.evaluate(() => scrollTo(0, 0))
    await frames(page)
    assert.equal(await counts(page), played, "it plays once")
    assert.equal(await page.locator("#race:enabled").count(), 1, "it plays once")
    assert.equal(await page.locator("#busy").textContent(), "0", "it plays once")

    const where = `${device}, ${colorScheme}`
    const labels = await page.locator("figure small").evaluateAll((labels) => labels.map((label) => {
      const [inner, outer] = [label.getBoundingClientRect(), label.closest("ol").getBoundingClientRect()]
      return { text: label.textContent, whole: inner.left >= outer.left && inner.right <= outer.right }
    }))
    assert.equal(labels.length, 12)
    for (const { text, whole } of labels) assert.ok(whole, `"${text}" is cut off: ${where}`)
    assert.ok(labels.some(({ text }) => text === "60 → 50"), where)
    const covered = await page.locator("figure li").evaluateAll((rows) => rows.filter((row) =>
      row.querySelector("span").getBoundingClientRect().right > row.querySelector("small").getBoundingClientRect().left).length)
    assert.equal(covered, 0, `bars cover their labels: ${where}`)
    const legend = await page.locator(".legend > span").evaluateAll((parts) => parts.map((part) => {
      const [swatch, line] = [part.firstElementChild.getBoundingClientRect(), part.getBoundingClientRect()]
      return { text: part.textContent, together: line.height < 30 && swatch.top >= line.top && swatch.bottom <= line.bottom }
    }))
    assert.equal(legend.length, 5)
    for (const { text, together } of legend) assert.ok(together, `"${text}" is not on the line of its swatch: ${where}`)
    assert.ok(await page.evaluate((width) => document.documentElement.scrollWidth <= width, width), `too wide: ${where}`)
    const ground = await page.evaluate(() => getComputedStyle(document.body).backgroundColor.match(/\d+/g).slice(0, 3))
    const [least, most] = [Math.min(...ground), Math.max(...ground)]
    assert.ok(colorScheme === "light" ? least > 200 : most < 55, `the background is ${ground}: ${where}`)
    await page.close()
  }))
  assert.deepEqual(troubles, [])
  console.log(`the page keeps its promises, and the binding its ${promises}, in Chromium ${browser.version()}`)
} finally {
  await browser.close()
  server.close()
}
