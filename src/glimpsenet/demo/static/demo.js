// The page: the visitor's choices, the answers, and how both are shown. The server keeps nothing between requests.

import { Newest, ask, get, getBlob, openPicture } from "./server.js";
import { clampWindow, makeDraggable, paint } from "./stage.js";
import { bars, curve, fieldMap, make, percent, signed } from "./charts.js";

const $ = (id) => document.getElementById(id);
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const SMALLEST = 0.05; // smallest s a visitor can set, unless the model's own minimum is smaller
const PACE = 950; // milliseconds per glimpse while playing
const EXAMPLES = 12;

const chosen = {
  run: 0, source: null, truth: null, pictures: new Map(), windows: new Map(), selected: 2, shown: 1,
  glimpses: 1, exit: 1, label: null, seed: 0,
};
let about = null, answer = null, image = null, swept = null, compared = null, playing = null, moving = null, firstExample = 0;

const run = () => about.runs[chosen.run];
const color = (glimpse) => about.palette[(glimpse - 1) % about.palette.length];
const smallest = () => Math.min(SMALLEST, run().scale_range[0]);
const asText = ([glimpse, window]) => `${glimpse}=${window.join(",")}`;
const looks = () => (answer ? answer.windows.length : 0);
const labelOf = (place) => { const name = chosen.truth; return name === null ? -1 : about.runs[place].classes.indexOf(name); };

// --- asking ---

function question(more = {}) {
  return {
    picture: chosen.pictures.get(chosen.run),
    windows: [...chosen.windows].filter(([glimpse]) => glimpse <= chosen.glimpses).map(asText),
    glimpses: chosen.glimpses, exit_confidence: chosen.exit, label: chosen.label, ...more,
  };
}

const looking = new Newest(async ({ asked, place, play }) => {
  const given = await ask(place, "look", asked);
  if (place !== chosen.run || asked.picture !== chosen.pictures.get(place)) return; // the picture has changed since
  // While a window is dragged, answers are for an earlier position: keep the current one.
  for (const [glimpse, window] of chosen.windows) if (glimpse <= given.windows.length) given.windows[glimpse - 1] = window;
  answer = given;
  chosen.shown = looks();
  chosen.selected = Math.min(chosen.selected, looks());
  calmDown();
  document.body.dataset.answers = +(document.body.dataset.answers || 0) + 1;
  if (play && !calm.matches) start(); else show();
}, complain);

function look(play = false) {
  if (chosen.pictures.has(chosen.run)) looking.push({ asked: question({ arrows: $("arrows").checked }), place: chosen.run, play });
}

function complain(error) {
  $("problem").firstElementChild.textContent = error.message;
  $("problem").hidden = false;
}

function calmDown() {
  $("problem").hidden = true;
}

const busy = (button, work) => async () => {
  button.disabled = true;
  button.classList.add("busy");
  try { await work(); } catch (error) { complain(error); }
  button.disabled = false;
  button.classList.remove("busy");
};

// --- pictures ---

async function open(blob, truth = null) {
  if (blob.size > about.max_bytes) {
    const size = (blob.size / 1e6).toFixed(0);
    return complain(new Error(`this file is ${size} MB; the limit is ${about.max_bytes / 1e6} MB`));
  }
  try {
    const picture = await openPicture(chosen.run, blob);
    Object.assign(chosen, { source: blob, truth, pictures: new Map([[chosen.run, picture]]), windows: new Map(), selected: 2 });
    await showPicture(true);
  } catch (error) { complain(error); }
}

async function pictureFor(place) {
  const source = chosen.source;
  if (!chosen.pictures.has(place)) {
    const picture = await openPicture(place, source);
    if (source === chosen.source) chosen.pictures.set(place, picture);
    return picture;
  }
  return chosen.pictures.get(place);
}

const loadImage = async (url) => {
  const loaded = new Image();
  loaded.src = url;
  await loaded.decode();
  return loaded;
};

async function showPicture(play) {
  const url = await pictureFor(chosen.run), loaded = await loadImage(url);
  if (url !== chosen.pictures.get(chosen.run)) return; // another picture was chosen meanwhile
  stop();
  image = loaded;
  answer = swept = compared = null;
  const known = labelOf(chosen.run);
  chosen.label = known < 0 ? null : known;
  $("label").value = chosen.label ?? "";
  $("waiting").hidden = true;
  calmDown();
  show();
  look(play);
}

async function showExamples() {
  if (!about.num_examples) return;
  const rows = await get(`api/examples?start=${firstExample}&count=${EXAMPLES}`);
  $("examples").replaceChildren(...rows.map(({ place, label, thumbnail }) => {
    const button = make("button", { type: "button", className: "example", title: label ? `example of class ${label}` : "example",
      data: { place } });
    button.append(thumbnail ? make("img", { src: thumbnail, alt: label ?? "" }) : "?");
    button.addEventListener("click", () => choose(place, label));
    return button;
  }));
  $("more").hidden = about.num_examples <= EXAMPLES;
}

async function choose(place, label) {
  for (const button of $("examples").children) button.setAttribute("aria-pressed", +button.dataset.place === place);
  try { await open(await getBlob(`api/examples/${place}`), label); } catch (error) { complain(error); }
}

// --- playing ---

function start() {
  stop();
  playing = { timer: null };
  chosen.shown = 1;
  const next = () => {
    if (chosen.shown >= looks()) { // done: select the first window, since all later ones react to it
      stop();
      chosen.selected = Math.min(2, looks());
      show();
      return;
    }
    slide(chosen.shown, chosen.shown + 1);
    chosen.shown += 1;
    chosen.selected = chosen.shown;
    show();
    playing.timer = setTimeout(next, PACE);
  };
  show();
  playing.timer = setTimeout(next, PACE * 0.7);
}

function stop() {
  if (playing) clearTimeout(playing.timer);
  playing = moving = null;
}

// A saccade: the window glides from the previous position to its own.
function slide(from, to) {
  if (calm.matches) return;
  const begin = performance.now(), a = answer.windows[from - 1], b = answer.windows[to - 1];
  const frame = (now) => {
    const share = Math.min(1, (now - begin) / 380), eased = 1 - (1 - share) ** 3;
    if (!playing || !answer) { moving = null; return; }
    moving = share < 1 ? { glimpse: to, window: a.map((value, k) => value + eased * (b[k] - value)) } : null;
    paintStage();
    if (moving) requestAnimationFrame(frame);
  };
  requestAnimationFrame(frame);
}

function jump(glimpse) {
  stop();
  chosen.shown = glimpse;
  chosen.selected = glimpse;
  show();
}

// --- windows ---

function move(glimpse, window) {
  stop();
  chosen.windows.set(glimpse, window);
  chosen.selected = glimpse;
  answer.windows[glimpse - 1] = window; // drawn immediately; the model's answer follows
  paintStage();
  showSliders();
  look();
}

const view = () => ({
  image, windows: answer ? answer.windows : [], shown: answer ? chosen.shown : 0, selected: chosen.selected,
  colors: color, gradients: answer && $("arrows").checked ? answer.gradients : null, longest: about.longest_arrow,
  yours: chosen.windows, handles: true,
});

function paintStage() {
  paint($("stage"), view(), { moving });
}

// --- showing ---

function show() {
  paintStage();
  showSteps();
  showAnswer();
  showCards();
  showSliders();
  showSweep();
  showCompare();
}

function showSteps() {
  const total = chosen.glimpses;
  $("play").classList.toggle("playing", Boolean(playing));
  $("play").setAttribute("aria-label", playing ? "pause" : "play");
  $("play").disabled = !answer || looks() < 2;
  const buttons = Array.from({ length: total }, (_, place) => {
    const glimpse = place + 1, button = make("button", { type: "button", text: glimpse, disabled: glimpse > looks() });
    button.style.setProperty("--step", color(glimpse));
    button.setAttribute("aria-label", glimpse === 1 ? "first glimpse" : `glimpse ${glimpse}`);
    button.setAttribute("aria-current", answer && glimpse === chosen.shown ? "step" : "false");
    button.classList.toggle("seen", Boolean(answer) && glimpse <= chosen.shown);
    button.addEventListener("click", () => jump(glimpse));
    return button;
  });
  $("steps").replaceChildren(...buttons);
}

function showAnswer() {
  if (!answer) return;
  const place = chosen.shown - 1, name = answer.answers[place], sure = answer.confidences[place];
  $("answer").replaceChildren(make("b", { text: name }), make("span", { text: ` ${percent(sure)} sure` }));
  $("answer").classList.toggle("wrong", labelOf(chosen.run) >= 0 && chosen.truth !== name);
  const truth = labelOf(chosen.run) < 0 ? "" : chosen.truth === name ? " Correct." : ` Correct answer: ${chosen.truth}.`;
  const after = chosen.shown === 1 ? "after the first glimpse" : `after ${chosen.shown} glimpses`;
  const early = answer.stopped_early && chosen.shown === looks() ? `, stopped early: surer than ${percent(chosen.exit)}` : "";
  $("verdict").textContent = `${after}${early}.${truth}`;
  showCost();
}

const billions = (flops) => `${(flops / 1e9).toPrecision(2)} GFLOPs`;

function showCost() {
  const { flops, share_of_full_pass: shares } = run().cost;
  const whole = shares ? flops[0] / shares[0] : flops[flops.length - 1];
  const parts = answer.windows.slice(0, chosen.shown).map((_, place) => {
    const part = make("span");
    part.style.width = `${100 * (flops[place] - (place ? flops[place - 1] : 0)) / Math.max(whole, flops[flops.length - 1])}%`;
    part.style.background = color(place + 1);
    return part;
  });
  $("meter").replaceChildren(...parts);
  const spent = flops[chosen.shown - 1];
  const share = shares ? `${percent(shares[chosen.shown - 1])} of a plain backbone pass over the whole picture` : "";
  const all = chosen.shown === looks() ? `, ${answer.milliseconds.toFixed(answer.milliseconds < 10 ? 1 : 0)} ms here` : "";
  $("meter").setAttribute("aria-label", `cost: ${share || billions(spent)}`);
  $("cost").textContent = [share, billions(spent)].filter(Boolean).join(" · ") + all;
}

function showCards() {
  if (!answer) { $("cards").replaceChildren(); return; }
  const cards = Array.from({ length: chosen.glimpses }, (_, place) => {
    const glimpse = place + 1, card = make("article", { className: "card", data: { glimpse } });
    card.style.setProperty("--step", color(glimpse));
    const title = glimpse === 1 ? "first glimpse" : chosen.windows.has(glimpse) ? "your window" : "model's choice";
    card.append(make("h2", {}, make("span", { className: "badge", text: glimpse }), ` ${glimpse > looks() ? "not needed" : title}`));
    if (glimpse > looks()) {
      card.classList.add("skipped");
      card.append(make("div", { className: "glimpse empty" }));
      return card;
    }
    const crop = make("button", { type: "button", className: "glimpse" }, make("img", { src: answer.crops[place], alt: `crop of glimpse ${glimpse}` }));
    crop.setAttribute("aria-pressed", glimpse === chosen.selected);
    crop.setAttribute("aria-label", `select window ${glimpse}`);
    crop.addEventListener("click", () => {
      stop();
      chosen.selected = glimpse;
      chosen.shown = Math.max(chosen.shown, glimpse);
      show();
    });
    card.classList.toggle("later", glimpse > chosen.shown);
    card.classList.toggle("coarse", run().glimpse_size < 64);
    card.append(crop, bars(answer.classes, answer.probabilities[place], { color: color(glimpse), truth: labelOf(chosen.run) >= 0 ? chosen.truth : null }));
    return card;
  });
  $("cards").replaceChildren(...cards);
}

function showSliders() {
  const window = answer ? answer.windows[chosen.selected - 1] : [1, 0, 0], glimpse = chosen.selected;
  $("steered").replaceChildren(answer ? `window ${glimpse}${chosen.windows.has(glimpse) ? " (yours)" : " (model's choice)"}` : "window");
  $("steered").style.setProperty("--step", color(glimpse));
  const reach = 1 - window[0];
  for (const [place, [id, low, high]] of [["s", smallest(), 1], ["tx", -reach, reach], ["ty", -reach, reach]].entries()) {
    const slider = $(id);
    Object.assign(slider, { min: low, max: high, step: "any", value: window[place], disabled: !answer || high - low < 1e-6 });
    slider.nextElementSibling.textContent = window[place].toFixed(2).replace("-", "−");
  }
  $("free").disabled = !chosen.windows.has(glimpse);
  $("free-all").disabled = chosen.windows.size === 0;
  const gradient = answer && answer.gradients && $("arrows").checked ? answer.gradients[glimpse - 2] : null;
  [...$("gradient").rows[1].cells].forEach((cell, place) => { cell.textContent = gradient ? signed(gradient[place]) : "–"; });
  $("do-sweep").textContent = `sweep window ${glimpse}`;
  $("do-sweep").disabled = !answer || $("do-sweep").classList.contains("busy");
}

// --- sweep and compare ---

const sameWindows = (a, b) => JSON.stringify(a) === JSON.stringify(b);

async function sweep() {
  const asked = question({ windows: answer.windows.map((window, place) => asText([place + 1, window])), glimpse: chosen.selected, exit_confidence: 1 });
  const drawn = { glimpse: chosen.selected, windows: answer.windows, picture: asked.picture, run: chosen.run };
  swept = { ...drawn, waiting: true };
  showSweep();
  drawn.curves = await ask(drawn.run, "sweep", asked);
  swept = drawn;
  showSweep();
  try { drawn.field = await ask(drawn.run, "field", asked); } catch (error) { drawn.refusal = error.message; }
  showSweep();
}

function showSweep() {
  if (!swept) { $("charts").replaceChildren(); return; }
  const current = answer && swept.picture === chosen.pictures.get(chosen.run);
  $("charts").classList.toggle("stale", !current || !sameWindows(swept.windows, answer.windows));
  if (!swept.curves) { $("charts").replaceChildren(make("p", { className: "hint", text: "sweeping…" })); return; }
  const window = swept.windows[swept.glimpse - 1], tone = color(swept.glimpse);
  const charts = Object.entries(swept.curves).map(([name, result], place) => curve(name, result, { color: tone, now: window[place] }));
  if (swept.field) {
    charts.push(fieldMap(swept.field, { picture: swept.picture, color: tone, window, choose: ([x, y]) => {
      if (current) move(swept.glimpse, clampWindow([window[0], x, y], smallest()));
    } }));
  } else {
    charts.push(make("figure", { className: "curve" }, make("figcaption", { text: "loss field" }), make("p", { className: "hint", text: swept.refusal ?? "computing the field…" })));
  }
  $("charts").replaceChildren(...charts);
}

const WAYS = { learned: "learned", random: "random", center: "centre", none: "none" };

async function compare() {
  const source = chosen.source;
  const found = [];
  for (const [place, { name, num_glimpses }] of about.runs.entries()) {
    const picture = await pictureFor(place), shown = await loadImage(picture), label = labelOf(place);
    for (const policy of Object.keys(WAYS)) {
      const asked = { picture, policy, seed: chosen.seed, glimpses: Math.min(chosen.glimpses, num_glimpses), exit_confidence: chosen.exit, label: label < 0 ? null : label };
      found.push({ place, run: name, policy, image: shown, given: await ask(place, "look", asked) });
    }
  }
  chosen.seed += 1; // new random windows next time
  if (source !== chosen.source) return;
  compared = found;
  showCompare();
}

function showCompare() {
  $("do-compare").textContent = about.runs.length > 1 ? "compare the runs" : "compare";
  $("do-compare").disabled = !answer || $("do-compare").classList.contains("busy");
  if (!compared) { $("lanes").replaceChildren(); return; }
  if ($("compare").hidden || $("lanes").shows === compared) return;
  $("lanes").shows = compared;
  $("lanes").replaceChildren(...about.runs.flatMap(({ name }, place) => {
    const rows = compared.filter((lane) => lane.place === place).map(lane);
    return [...(about.runs.length > 1 ? [make("h3", { text: name })] : []), make("div", { className: "row" }, ...rows)];
  }));
  for (const canvas of $("lanes").querySelectorAll("canvas")) canvas.draw();
}

function lane({ place, policy, image: shown, given }) {
  const canvas = make("canvas"), last = given.windows.length;
  canvas.draw = () => paint(canvas, { image: shown, windows: given.windows, shown: last, selected: 0, colors: color, gradients: null, longest: 0, yours: new Map(), handles: false });
  const { flops, share_of_full_pass: shares } = about.runs[place].cost;
  const right = labelOf(place) >= 0 && given.answers[last - 1] === chosen.truth, wrong = labelOf(place) >= 0 && !right;
  const says = make("p", { className: `says${wrong ? " wrong" : ""}` }, make("b", { text: given.answers[last - 1] }), ` ${percent(given.confidences[last - 1])}${right ? " ✓" : wrong ? " ✗" : ""}`);
  const strip = make("div", { className: "strip" }, ...given.crops.map((url, at) => {
    const small = make("img", { src: url, alt: `glimpse ${at + 1}` });
    small.style.borderColor = color(at + 1);
    return small;
  }));
  strip.classList.toggle("coarse", about.runs[place].glimpse_size < 64);
  const cost = shares ? `${percent(shares[last - 1])} of a full pass` : billions(flops[last - 1]);
  return make("article", { className: "lane", data: { policy } }, make("h4", { text: WAYS[policy] }), canvas, says, strip,
    make("p", { className: "hint", text: `${last} glimpse${last > 1 ? "s" : ""}, ${cost}` }));
}

// --- setting up ---

function showRun() {
  const { name, backbone, image_size, glimpse_size, num_glimpses, classes } = run();
  $("about-run").textContent = `${name}: ${backbone}, ${image_size} px images, ${glimpse_size} px glimpses, ${classes.length} classes`;
  chosen.glimpses = num_glimpses;
  Object.assign($("glimpses"), { max: num_glimpses, value: chosen.glimpses, disabled: num_glimpses < 2 });
  $("label").replaceChildren(make("option", { value: "", text: "predicted class" }), ...classes.map((text, value) => make("option", { value, text })));
  showDials();
}

function showDials() {
  $("glimpses").nextElementSibling.textContent = chosen.glimpses;
  $("exit").nextElementSibling.textContent = chosen.exit >= 1 ? "never" : percent(chosen.exit);
}

function turn() {
  stop();
  compared = null; // computed with the old settings
  showDials();
  look();
}

function wire() {
  $("problem").lastElementChild.addEventListener("click", calmDown);
  $("file").addEventListener("change", () => { if ($("file").files[0]) upload($("file").files[0]); $("file").value = ""; });
  document.addEventListener("dragover", (event) => { event.preventDefault(); document.body.classList.add("dropping"); });
  document.addEventListener("dragleave", (event) => { if (!event.relatedTarget) document.body.classList.remove("dropping"); });
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    document.body.classList.remove("dropping");
    if (event.dataTransfer.files[0]) upload(event.dataTransfer.files[0]);
  });
  document.addEventListener("paste", (event) => { if (event.clipboardData.files[0]) upload(event.clipboardData.files[0]); });
  $("more").addEventListener("click", busy($("more"), async () => {
    firstExample = firstExample + EXAMPLES < about.num_examples ? firstExample + EXAMPLES : 0;
    await showExamples();
  }));
  $("play").addEventListener("click", () => { if (playing) { stop(); show(); } else start(); });
  $("glimpses").addEventListener("input", () => { chosen.glimpses = +$("glimpses").value; turn(); });
  $("exit").addEventListener("input", () => { chosen.exit = +$("exit").value; turn(); });
  for (const [place, id] of ["s", "tx", "ty"].entries()) {
    $(id).addEventListener("input", () => {
      const window = [...answer.windows[chosen.selected - 1]];
      window[place] = +$(id).value;
      move(chosen.selected, clampWindow(window, smallest()));
    });
  }
  $("free").addEventListener("click", () => { chosen.windows.delete(chosen.selected); look(); });
  $("free-all").addEventListener("click", () => { chosen.windows.clear(); look(); });
  $("arrows").addEventListener("change", () => look());
  $("label").addEventListener("change", () => { chosen.label = $("label").value === "" ? null : +$("label").value; look(); });
  $("run").addEventListener("change", async () => {
    chosen.run = +$("run").value;
    Object.assign(chosen, { windows: new Map(), selected: 2 });
    showRun();
    if (chosen.source) try { await showPicture(true); } catch (error) { complain(error); }
  });
  $("do-sweep").addEventListener("click", busy($("do-sweep"), async () => {
    try { await sweep(); } catch (error) { swept = null; showSweep(); throw error; }
  }));
  $("do-compare").addEventListener("click", busy($("do-compare"), compare));
  const tabs = [...document.querySelectorAll("[role=tab]")];
  for (const tab of tabs) tab.addEventListener("click", () => chooseTab(tab));
  document.querySelector("[role=tablist]").addEventListener("keydown", (event) => {
    const turn = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!turn) return;
    const next = tabs[(tabs.indexOf(document.activeElement) + turn + tabs.length) % tabs.length];
    next.focus();
    chooseTab(next);
  });
  new ResizeObserver(() => paintStage()).observe($("stage"));
  makeDraggable($("stage"), { view, move, smallest, select: (glimpse) => { stop(); chosen.selected = glimpse; show(); } });

  function chooseTab(tab) {
    for (const other of tabs) {
      other.setAttribute("aria-selected", other === tab);
      other.tabIndex = other === tab ? 0 : -1;
      $(other.getAttribute("aria-controls")).hidden = other !== tab;
    }
    if (answer) show();
  }
}

function upload(file) {
  for (const button of $("examples").children) button.setAttribute("aria-pressed", "false");
  open(file);
}

async function begin() {
  about = await get("api/about");
  $("run").replaceChildren(...about.runs.map(({ name }, value) => make("option", { value, text: name })));
  $("run").parentElement.hidden = about.runs.length < 2;
  showRun();
  wire();
  showSteps();
  showSliders();
  showCompare();
  await showExamples();
  if (about.num_examples) {
    const first = $("examples").firstElementChild;
    if (first) first.click();
  }
}

begin().catch(complain);
