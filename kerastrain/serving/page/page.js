/* The page of the server: shows the models, and asks the chosen one.

   refresh()    every other second: what is served (/page/models); shows what changed
   panels       canvas, form or JSON: each gives the body of a request as text
   ask()        sends it, one request at a time, and shows the answer
   calls        the same request as a curl and as a Python call

   Names and values come from users' data. They enter the page as text nodes and properties
   only, and are never keys of an object that this script makes. */
"use strict";

const POLL_MS = 2000;
const BETWEEN_REQUESTS_MS = 60;
const TIMEOUT_MS = 30000;
// More classes than MANY are shown by their probability, the first SHOWN of them.
const MANY = 12;
const SHOWN = 10;
const LARGEST_TEMPLATE = 4096;

const page = {
  text: null,        // of /page/models, as it came last
  models: [],
  name: "",          // of the chosen model
  choice: "",        // "", "/versions/N" or "/labels/L": its place in the address
  signature: "",     // of the chosen signature
  panel: null,
  panelKey: "",      // what the panel was made from
  answered: null,    // the version that was the newest when the answer came
  language: "curl",
};

/* ---------------------------------------------------------------- small things */

const at = (id) => document.getElementById(id);
const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/** An element with properties (or attributes) and children; strings become text. */
function make(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes("-") || name === "list" || name === "role") element.setAttribute(name, value);
    else element[name] = value;
  }
  element.append(...children);
  return element;
}

function say(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

/** JSON as TensorFlow Serving writes it: bare NaN and Infinity become texts. */
function parse(text) {
  const token = /"(?:[^"\\]|\\.)*"|-?\b(?:NaN|Infinity)\b/gs;
  return JSON.parse(text.replace(token, (found) => (found[0] === '"' ? found : `"${found}"`)));
}

const number = (value) =>
  typeof value === "number" ? value.toLocaleString("en", { maximumSignificantDigits: 6 }) : String(value);
const percent = (share) => (typeof share === "number" ? `${(100 * share).toFixed(1)} %` : String(share));

/* ---------------------------------------------------------------- what is served */

async function refresh() {
  try {
    const response = await fetch("page/models", { signal: AbortSignal.timeout(TIMEOUT_MS) });
    if (!response.ok) throw new Error(`status ${response.status}`);
    const text = await response.text();
    connected(true);
    if (text !== page.text) {
      page.text = text;
      const before = page.models;
      page.models = parse(text).models;
      showModels(changes(before, page.models));
      showWorkspace();
    }
  } catch (error) {
    if (error instanceof TypeError || error.name === "TimeoutError" || /^status/.test(error.message)) {
      connected(false);
    } else {
      throw error; // a bug, and not the network
    }
  }
}

async function watch() {
  for (;;) {
    if (!document.hidden) await refresh().catch(console.error);
    await pause(POLL_MS);
  }
}

function connected(isConnected) {
  at("connection").className = `connection ${isConnected ? "good" : "bad"}`;
  say("connection", isConnected ? "Connected" : "No answer from the server; trying again");
}

/** Versions whose state is not what it was, as "model/version"; tells those who listen. */
function changes(before, after) {
  const stateOf = (models) =>
    new Map(models.flatMap((m) => m.versions.map((v) => [`${m.name}/${v.version}`, [m, v]])));
  const [old, now] = [stateOf(before), stateOf(after)];
  const changed = [...now].filter(([key, [, v]]) => old.get(key)?.[1].state !== v.state);
  if (before.length === 0) return new Set();
  say("announcer", changed.map(([, [m, v]]) => `${m.name}: version ${v.version} is ${state(v)}.`).join(" "));
  return new Set(changed.map(([key]) => key));
}

const state = (v) => (v.error_code === "OK" ? v.state.toLowerCase() : "failed");

function showModels(switched) {
  const focused = document.activeElement?.closest?.("#models button")?.value;
  at("models").replaceChildren(...page.models.map((model) => modelItem(model, switched)));
  const buttons = [...document.querySelectorAll("#models button")];
  buttons.find((button) => button.value === focused)?.focus();
  const list = at("models");
  const chosen = list.querySelector(".chosen");
  if (chosen) list.scrollLeft = chosen.offsetLeft - list.offsetLeft - 16; // beside each other on a phone
}

function modelItem(model, switched) {
  const isChosen = model.name === page.name;
  const button = make("button", { type: "button", value: model.name, onclick: () => choose(model.name) },
    make("span", {}, model.name), make("span", { className: "kind" }, kind(model)));
  if (isChosen) button.setAttribute("aria-current", "true");
  const versions = model.versions.map((v) => versionLine(model, v, switched));
  return make("li", { className: isChosen ? "chosen" : "" }, button,
    make("div", { className: "versions" }, ...(versions.length ? versions : ["no version yet"])));
}

function versionLine(model, v, switched) {
  const line = make("div", { className: switched.has(`${model.name}/${v.version}`) ? "switched" : "" },
    make("span", { className: "number" }, `version ${v.version}`),
    make("span", { className: `state ${v.error_code === "OK" ? v.state : "failed"}` }, state(v)));
  const marks = model.labels.filter(([, version]) => version === v.version).map(([label]) => label);
  if (v.version === model.default) marks.unshift("default");
  line.append(...marks.map((mark) => make("span", { className: "mark" }, mark)));
  if (v.error_message) line.append(make("span", { className: "message" }, v.error_message));
  return line;
}

function kind(model) {
  const first = model.versions.find((v) => v.version === model.default)?.described?.signatures[0];
  if (first?.kind === "image") return `image ${first.image.height} × ${first.image.width}`;
  if (first?.kind === "table") return `${first.fields.length} column${first.fields.length === 1 ? "" : "s"}`;
  return "";
}

function choose(name) {
  page.name = name;
  page.choice = page.signature = "";
  location.replace(`#${encodeURIComponent(name)}`);
  showModels(new Set());
  showWorkspace();
}

/* ---------------------------------------------------------------- the chosen model */

const chosenModel = () => page.models.find((model) => model.name === page.name);

function chosenVersion() {
  const model = chosenModel();
  const [, how, which] = page.choice.split("/");
  const label = model.labels.find(([name]) => how === "labels" && encodeURIComponent(name) === which);
  const wanted = how === "versions" ? Number(which) : label ? label[1] : model.default;
  return model.versions.find((v) => v.version === wanted && v.described);
}

function chosenSignature() {
  const signatures = chosenVersion().described.signatures;
  return signatures.find((signature) => signature.name === page.signature) ?? signatures[0];
}

/** Shows what can be asked now; a panel with somebody's drawing or text in it stays if it can. */
function showWorkspace() {
  if (!chosenModel()) {
    page.name = page.models[0]?.name ?? "";
    if (page.name) showModels(new Set());
  }
  const model = chosenModel();
  if (model && !chosenVersion()) page.choice = "";
  const version = model && chosenVersion();
  at("ask").hidden = !version;
  at("nothing").hidden = Boolean(version);
  if (!version) {
    page.panelKey = "";
    page.panel = null;
    say("nothing", whyNothing(model));
    return;
  }
  say("model-name", model.name);
  document.title = `${model.name} · kerastrain`;
  fillSelect("version", page.choice, versionChoices(model));
  const signature = chosenSignature();
  fillSelect("signature", signature.name, version.described.signatures.map((s) => [s.name, s.name]));
  at("signature-choice").hidden = version.described.signatures.length === 1;
  showFacts(version);
  showPanel(model, version, signature);
  if (page.answered !== null && page.answered !== version.version) ask();
}

function whyNothing(model) {
  if (!model) return "This server serves no model.";
  const failed = model.versions.filter((v) => v.error_message);
  const reasons = failed.map((v) => `Version ${v.version}: ${v.error_message}`);
  return [`No version of ${model.name} can be asked yet.`, ...reasons].join("\n");
}

function versionChoices(model) {
  const served = model.versions.filter((v) => v.described).map((v) => v.version);
  const labels = model.labels.filter(([, version]) => served.includes(version));
  return [
    ["", `default (${model.default})`],
    ...served.map((version) => [`/versions/${version}`, `${version}`]),
    ...labels.map(([label, version]) => [`/labels/${encodeURIComponent(label)}`, `${label} (${version})`]),
  ];
}

/** Options are made anew only when they changed: a list that somebody has open would close. */
function fillSelect(id, value, choices) {
  const key = JSON.stringify(choices);
  if (at(id).dataset.key !== key) {
    at(id).dataset.key = key;
    at(id).replaceChildren(...choices.map(([choice, text]) => new Option(text, choice)));
  }
  at(id).value = value;
}

function showFacts(version) {
  const facts = version.described.about;
  at("about").hidden = facts.length === 0;
  at("facts").replaceChildren(
    ...facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, number(value))]));
}

function showPanel(model, version, signature) {
  const key = JSON.stringify([model.name, signature]);
  if (key !== page.panelKey) {
    const isSameModel = page.panelKey && JSON.parse(page.panelKey)[0] === model.name;
    const typed = isSameModel ? page.panel.typed?.() : undefined;
    const strokes = isSameModel ? page.panel.strokes : undefined;
    const focused = document.activeElement?.id;
    page.panelKey = key;
    const makers = { image: imagePanel, table: tablePanel, other: jsonPanel };
    page.panel = makers[signature.kind](signature, version.described, { typed, strokes });
    at("input").replaceChildren(page.panel.element);
    if (focused) at(focused)?.focus();
    clearAnswer();
    if (strokes?.length && page.panel.strokes) ask();
  }
  showCall();
}

/* ---------------------------------------------------------------- panel: a form for a table */

function tablePanel(signature, described, { typed = new Map() }) {
  const fields = signature.fields.map((field, index) => formField(field, index, typed.get(field.input)));
  const reset = make("button", { type: "button", className: "quiet", onclick: () => {
    for (const field of fields) field.set(field.example);
    inputChanged();
  } }, "Fill in a typical row");
  const form = make("form", { noValidate: true },
    make("div", { className: "fields" }, ...fields.map((field) => field.element)),
    make("div", { className: "buttons" },
      make("button", { type: "submit", className: "action" }, "Predict"), reset,
      make("span", { className: "hint" }, "An empty field is a missing value.")));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    fields.find((field) => !field.check())?.control.focus();
    ask();
  });
  form.addEventListener("input", showCallSoon);
  form.addEventListener("change", () => (page.answered === null ? showCallSoon() : ask()));
  return {
    element: form,
    read() {
      const lines = fields.map((field) => `  ${JSON.stringify(field.input)}: ${field.json()}`);
      const isValid = fields.map((field) => field.check()).every(Boolean);
      return { text: rowJson(signature, `{\n${lines.join(",\n")}\n}`), isReady: isValid };
    },
    typed: () => new Map(fields.filter((f) => f.control.value !== f.example).map((f) => [f.input, f.control.value])),
  };
}

function formField(field, index, typed) {
  const id = `field-${index}`;
  const hint = make("div", { className: "hint", id: `${id}-hint` }, field.hint);
  const problem = make("div", { className: "problem", id: `${id}-problem` });
  const control = field.control === "choice" ? choiceControl(field) : entryControl(field);
  control.id = id;
  control.setAttribute("aria-describedby", `${hint.id} ${problem.id}`);
  const element = make("div", { className: "field" }, make("label", { htmlFor: id }, field.label), control, hint, problem);
  if (field.control !== "choice" && field.options.length) element.append(suggestions(field, control, id));
  const set = (value) => {
    control.value = value;
    if (control.selectedIndex === -1) control.value = field.example;
    check();
  };
  const check = () => {
    const found = fieldProblem(field, control);
    problem.textContent = found;
    control.setAttribute("aria-invalid", String(found !== ""));
    const isUnusual = field.minimum !== null && control.value !== "" &&
      (Number(control.value) < field.minimum || Number(control.value) > field.maximum);
    hint.textContent = isUnusual ? `not within the training data: ${field.hint}` : field.hint;
    hint.classList.toggle("unusual", isUnusual);
    return found === "";
  };
  control.addEventListener("input", check);
  set(typed ?? field.example);
  return { ...field, control, element, set, check, json: () => fieldJson(field, control.value) };
}

function choiceControl(field) {
  const missing = field.may_be_missing ? [["", "(missing)"]] : [];
  const options = [...field.options, ...missing];
  return make("select", {}, ...options.map(([value, text]) => new Option(text, value)));
}

function entryControl(field) {
  if (field.control !== "number") return make("input", { type: "text", autocomplete: "off", spellcheck: false });
  const isWhole = field.dtype.includes("int");
  return make("input", { type: "number", step: isWhole ? "1" : "any", inputMode: isWhole ? "numeric" : "decimal" });
}

function suggestions(field, control, id) {
  control.setAttribute("list", `${id}-list`);
  return make("datalist", { id: `${id}-list` }, ...field.options.map(([value]) => new Option(value, value)));
}

function fieldProblem(field, control) {
  if (control.validity.badInput) return "This is not a number.";
  if (control.value === "" && !field.may_be_missing) return "A value is needed.";
  if (field.dtype.includes("int") && !/^-?\d+$/.test(control.value)) return "A whole number is needed.";
  return "";
}

/** A field's value as JSON text: digits stay as typed, also where JavaScript would round them. */
function fieldJson(field, value) {
  if (field.dtype === "string") return JSON.stringify(value);
  if (value === "") return field.may_be_missing ? "NaN" : "null";
  if (field.dtype === "bool" || /^-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?$/.test(value)) return value;
  return String(Number(value));
}

/** The body of a request, its values given as JSON text. */
function bodyJson(signature, key, values) {
  const named = signature.name === "serving_default" ? "" : `"signature_name": ${JSON.stringify(signature.name)}, `;
  return `{${named}"${key}": ${values}}`;
}

const rowJson = (signature, row) => bodyJson(signature, "instances", `[${row}]`);

/* ---------------------------------------------------------------- panel: a canvas for an image */

// MNIST's digits were scaled to fit 20 x 20 pixels, smoothed, and moved so that their centre of
// mass lies in the middle of 28 x 28 (LeCun, Cortes and Burges, "The MNIST database"). In the
// files that is 14.5 of 28 on average, and a stroke is 2.6 pixels wide. Images of up to
// 16 x 16, as UCI's digits of 8 x 8, are filled to the edges by strokes of a fifth.
const BOX = 20 / 28;
const PEN = 2.6 / 20;
const FILLED_UP_TO = 16;
const PEN_WHEN_FILLED = 1 / 5;
const PAPER = 280;   // pixels of the longer side
const INK = 20;      // width of a stroke on the paper

function imagePanel(signature, described, { strokes = [] }) {
  const { height, width, maximum } = signature.image;
  const paper = make("canvas", {
    className: "paper", id: "paper", tabIndex: 0, role: "application",
    width: Math.round(PAPER * Math.min(1, width / height)),
    height: Math.round(PAPER * Math.min(1, height / width)),
    "aria-label": "Drawing. With the keyboard: arrow keys move the pen, Space lowers and lifts it, Delete clears.",
  });
  const seen = make("canvas", { className: "seen", width, height, role: "img", "aria-label": "What the model gets" });
  const range = make("select", { id: "range" }, new Option("0 to 255", "255"), new Option("0 to 1", "1"));
  const rangeLabel = make("label", { className: "hint", hidden: maximum !== null || signature.inputs[0].dtype.includes("int") }, "Values ", range);
  const clear = make("button", { type: "button", className: "quiet", id: "clear" }, "Clear");
  const panel = { strokes, element: make("div", {},
    make("div", { className: "drawing" }, paper,
      make("figure", {}, seen, make("figcaption", {}, `What the model gets, ${height} × ${width}`))),
    make("div", { className: "buttons" }, clear, rangeLabel, make("span", { className: "hint" }, "Draw with mouse, finger or pen."))) };

  let pixels = null;  // of the strokes as they are; null: to be made
  const changed = () => {
    pixels = null;
    drawStrokes(paper, panel.strokes);
    ask();
  };
  const grey = () => (pixels ??= rasterize(panel.strokes, height, width));
  panel.read = () => {
    showPixels(seen, grey());
    const largest = maximum ?? Number(range.value);
    return { text: rowJson(signature, imageJson(grey(), signature.image, largest)), isReady: panel.strokes.length > 0 };
  };
  clear.onclick = () => {
    panel.strokes = [];
    changed();
  };
  range.onchange = ask;
  followPointer(paper, panel, changed);
  followKeys(paper, panel, changed, clear);
  drawStrokes(paper, panel.strokes);
  return panel;
}

function followPointer(paper, panel, changed) {
  let pointer = null;
  const place = (event) => {
    const box = paper.getBoundingClientRect();
    return [(event.clientX - box.left) * paper.width / box.width, (event.clientY - box.top) * paper.height / box.height];
  };
  paper.addEventListener("pointerdown", (event) => {
    if (pointer !== null || event.button !== 0) return;
    event.preventDefault();
    paper.focus({ preventScroll: true, focusVisible: false });
    pointer = event.pointerId;
    paper.setPointerCapture(pointer);
    panel.strokes.push([place(event)]);
    changed();
  });
  paper.addEventListener("pointermove", (event) => {
    if (event.pointerId !== pointer || !panel.strokes.length) return;
    const events = event.getCoalescedEvents?.() ?? [];
    panel.strokes.at(-1).push(...(events.length ? events : [event]).map(place));
    changed();
  });
  const lift = (event) => {
    if (event.pointerId === pointer) pointer = null;
  };
  paper.addEventListener("pointerup", lift);
  paper.addEventListener("pointercancel", lift);
}

function followKeys(paper, panel, changed, clear) {
  const moves = new Map([["ArrowLeft", [-1, 0]], ["ArrowRight", [1, 0]], ["ArrowUp", [0, -1]], ["ArrowDown", [0, 1]]]);
  const step = PAPER / 28;
  let [x, y, isDown] = [paper.width / 2, paper.height / 2, false];
  const show = () => {
    drawStrokes(paper, panel.strokes);
    drawPen(paper, x, y, isDown);
  };
  paper.addEventListener("keydown", (event) => {
    const move = moves.get(event.key);
    if (move) {
      x = Math.min(Math.max(x + step * move[0], 0), paper.width);
      y = Math.min(Math.max(y + step * move[1], 0), paper.height);
      if (isDown) panel.strokes.at(-1)?.push([x, y]);
    } else if (event.key === " ") {
      isDown = !isDown;
      if (isDown) panel.strokes.push([[x, y]]);
    } else if (event.key === "Delete" || event.key === "Backspace") {
      isDown = false;
      clear.click();
    } else {
      return;
    }
    event.preventDefault();
    if (isDown) changed();
    show();
  });
  paper.addEventListener("blur", () => {
    isDown = false;
    drawStrokes(paper, panel.strokes);
  });
}

function trace(context, strokes, lineWidth) {
  context.strokeStyle = "#fff";
  context.lineWidth = lineWidth;
  context.lineCap = context.lineJoin = "round";
  for (const [first, ...others] of strokes) {
    context.beginPath();
    context.moveTo(...first);
    context.lineTo(first[0] + 0.01, first[1]); // a dot, if nothing follows
    for (const point of others) context.lineTo(...point);
    context.stroke();
  }
}

function drawStrokes(paper, strokes) {
  const context = paper.getContext("2d");
  context.clearRect(0, 0, paper.width, paper.height); // its background is black
  trace(context, strokes, INK);
}

function drawPen(paper, x, y, isDown) {
  const context = paper.getContext("2d");
  context.fillStyle = isDown ? "#ffd24d" : "#7a8aa8";
  context.beginPath();
  context.arc(x, y, 6, 0, 2 * Math.PI);
  context.fill();
}

/** The strokes as a grey image, [height * width] of 0 to 255, scaled and centred. */
function rasterize(strokes, height, width) {
  if (!strokes.length) return new Float64Array(height * width);
  const isFilled = Math.min(height, width) <= FILLED_UP_TO;
  const box = Math.min(height, width) * (isFilled ? 1 : BOX);
  const pen = box * (isFilled ? PEN_WHEN_FILLED : PEN);
  const [xs, ys] = [0, 1].map((axis) => extent(strokes.flat().map((point) => point[axis])));
  // What is hardly more than a dot stays small.
  const scale = (box - pen) / Math.max(xs.length, ys.length, PAPER / 10);
  const view = { strokes, height, width, scale, pen, x: width / 2 - scale * xs.middle, y: height / 2 - scale * ys.middle };
  const mass = centreOfMass(greyImage(view), width);
  const middle = isFilled ? 0 : 0.5;
  const towards = (size, ink, centre) => {
    const room = Math.max((size - ink - pen) / 2, 0);
    return Math.min(Math.max(size / 2 + middle - centre, -room), room);
  };
  view.x += towards(width, scale * xs.length, mass.x);
  view.y += towards(height, scale * ys.length, mass.y);
  return greyImage(view);
}

function extent(values) {
  const low = values.reduce((a, b) => Math.min(a, b));
  const high = values.reduce((a, b) => Math.max(a, b));
  return { middle: (low + high) / 2, length: high - low };
}

/** Drawn several times as large, then each pixel the mean of its part: smooth edges. */
function greyImage({ strokes, height, width, scale, pen, x, y }) {
  const times = Math.max(2, Math.round(224 / Math.max(height, width)));
  const canvas = make("canvas", { width: width * times, height: height * times });
  const context = canvas.getContext("2d", { willReadFrequently: true });
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.setTransform(times * scale, 0, 0, times * scale, times * x, times * y);
  trace(context, strokes, pen / scale);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  const grey = new Float64Array(height * width);
  for (let row = 0; row < canvas.height; row++) {
    for (let column = 0; column < canvas.width; column++) {
      const pixel = Math.floor(row / times) * width + Math.floor(column / times);
      grey[pixel] += data[4 * (row * canvas.width + column)] / times ** 2;
    }
  }
  return grey;
}

function centreOfMass(grey, width) {
  let [sum, x, y] = [0, 0, 0];
  grey.forEach((value, index) => {
    sum += value;
    x += value * (index % width + 0.5);
    y += value * (Math.floor(index / width) + 0.5);
  });
  return { x: x / sum, y: y / sum };
}

function showPixels(canvas, grey) {
  const context = canvas.getContext("2d");
  const image = context.createImageData(canvas.width, canvas.height);
  grey.forEach((value, index) => image.data.set([value, value, value, 255], 4 * index));
  context.putImageData(image, 0, 0);
}

/** One image as JSON, a line for each row of pixels. */
function imageJson(grey, { height, width, channels }, largest) {
  const text = (value) => {
    const one = largest > 1 ? String(Math.round(value / 255 * largest)) : String(Number((value / 255).toFixed(3)));
    return channels === null ? one : `[${Array(channels).fill(one).join(",")}]`;
  };
  const line = (row) => `[${Array.from(grey.subarray(row * width, (row + 1) * width), text).join(",")}]`;
  return `[\n${Array.from({ length: height }, (_, row) => line(row)).join(",\n")}\n]`;
}

/* ---------------------------------------------------------------- panel: JSON for the others */

function jsonPanel(signature, described, { typed }) {
  const area = make("textarea", { id: "json", spellcheck: false, autocapitalize: "off", "aria-describedby": "json-hint" });
  const template = bodyTemplate(signature, described);
  area.value = typed?.get?.(signature.name) ?? template;
  const expected = signature.inputs.map((input) => `${input.name}: ${input.dtype} ${shapeText(input.shape)}`);
  const form = make("form", {},
    make("label", { htmlFor: "json", className: "hint", id: "json-hint" }, `Body of the request, JSON. Inputs: ${expected.join("; ") || "none"}`),
    area,
    make("div", { className: "buttons" },
      make("button", { type: "submit", className: "action" }, "Predict"),
      make("button", { type: "button", className: "quiet", onclick: () => {
        area.value = template;
        inputChanged();
      } }, "Start over"),
      ...(template.includes('{"b64": ') ? [fileChooser(area, template)] : [])));
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    ask();
  });
  area.addEventListener("input", showCallSoon);
  return {
    element: form,
    read: () => ({ text: area.value, isReady: true }),
    typed: () => new Map(area.value === template ? [] : [[signature.name, area.value]]),
  };
}

const shapeText = (shape) => (shape === null ? "of any shape" : `[${shape.map((size) => size ?? "any").join(", ")}]`);

/** A body that the signature takes, with zeros and empty texts in it. */
function bodyTemplate(signature, described) {
  if (signature.method !== "predict") return bodyJson(signature, "examples", `[${exampleJson(described)}]`);
  const isRows = [...signature.inputs, ...signature.outputs].every(({ shape }) => shape?.length && shape[0] === null);
  const values = signature.inputs.map((input) => {
    const shape = (isRows ? input.shape.slice(1) : input.shape ?? []).map((size) => size ?? 1);
    return `  ${JSON.stringify(input.name)}: ${valueJson(input, shape, described)}`;
  });
  const named = `{\n${values.join(",\n")}\n}`;
  return isRows ? rowJson(signature, named) : bodyJson(signature, "inputs", named);
}

function valueJson(input, shape, described) {
  if (input.dtype === "string" && input.name.endsWith("_bytes") && !shape.length) {
    return `{"b64": "${blankPng(described)}"}`;
  }
  if (shape.reduce((product, size) => product * size, 1) > LARGEST_TEMPLATE) return "[]";
  const zero = input.dtype === "string" ? '""' : input.dtype === "bool" ? "false" : "0";
  return shape.reduceRight((inner, size) => `[${Array(size).fill(inner).join(", ")}]`, zero);
}

function blankPng(described) {
  const { height, width } = described.signatures.find((s) => s.kind === "image")?.image ?? { height: 1, width: 1 };
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").fillRect(0, 0, width, height);
  return canvas.toDataURL("image/png").split(",")[1];
}

/** The features of one tf.train.Example: those of the model's first signature. */
function exampleJson(described) {
  const first = described.signatures[0];
  // In an example a number without a point is an int64, which no float feature takes.
  const feature = (text, dtype) => (dtype.includes("float") && /^-?\d+$/.test(text) ? `${text}.0` : text);
  if (first.kind === "image") {
    const { height, width, channels } = first.image;
    const zeros = Array(height * width * (channels ?? 1)).fill(feature("0", first.inputs[0].dtype)).join(",");
    return `{${JSON.stringify(first.inputs[0].name)}: [${zeros}]}`;
  }
  const fields = (first.fields ?? []).filter((field) => field.example !== "");
  const values = fields.map((field) => feature(fieldJson(field, field.example), field.dtype));
  return `{\n${fields.map((field, i) => `  ${JSON.stringify(field.input)}: ${values[i]}`).join(",\n")}\n}`;
}

/** Puts a file's bytes into the body: {"b64": …} is how TensorFlow Serving takes them. */
function fileChooser(area, template) {
  const chooser = make("input", { type: "file", accept: "image/*" });
  chooser.onchange = async () => {
    const [file] = chooser.files;
    if (!file) return;
    const bytes = new Uint8Array(await file.arrayBuffer());
    const base64 = btoa(Array.from(bytes, (byte) => String.fromCharCode(byte)).join(""));
    area.value = template.replace(/"b64": *"[^"]*"/, () => `"b64": "${base64}"`);
    ask();
  };
  return make("label", { className: "hint" }, "Or a file: ", chooser);
}

/* ---------------------------------------------------------------- asking */

const asking = { isBusy: false, isWanted: false };

/** Asks about what is on the screen; while an answer is awaited, only the newest wish is kept. */
async function ask() {
  showCallSoon();
  asking.isWanted = true;
  if (asking.isBusy) return;
  asking.isBusy = true;
  try {
    while (asking.isWanted) {
      asking.isWanted = false;
      await askOnce();
      await pause(BETWEEN_REQUESTS_MS);
    }
  } finally {
    asking.isBusy = false;
  }
}

async function askOnce() {
  const panel = page.panel;
  if (!panel) return;
  const body = panel.read();
  if (!body.isReady) {
    clearAnswer();
    return;
  }
  const url = address();
  const { status, text } = await post(url, body.text);
  // Somebody cleared the drawing or chose another model meanwhile.
  if (panel !== page.panel || url !== address() || !panel.read().isReady) return;
  if (status === 200) showAnswer(text);
  else showError(status, text);
}

async function post(url, body) {
  try {
    const headers = { "Content-Type": "application/json" };
    const response = await fetch(url, { method: "POST", headers, body, signal: AbortSignal.timeout(TIMEOUT_MS) });
    return { status: response.status, text: await response.text() };
  } catch (error) {
    return { status: 0, text: error.name === "TimeoutError" ? `No answer within ${TIMEOUT_MS / 1000} seconds.` : "The server cannot be reached." };
  }
}

function address() {
  const path = `v1/models/${encodeURIComponent(page.name)}${page.choice}:${chosenSignature().method}`;
  return new URL(path, document.baseURI).href;
}

function inputChanged() {
  if (page.answered === null) showCallSoon();
  else ask();
}

/* ---------------------------------------------------------------- answers */

function clearAnswer() {
  page.answered = null;
  at("error").hidden = true;
  at("raw").hidden = true;
  at("answer").replaceChildren();
  const isImage = page.panel?.strokes;
  summary("", "", isImage ? "Draw something to see an answer." : "Press Predict to see an answer.");
}

function showError(status, text) {
  let message = text;
  try {
    message = JSON.parse(text).error ?? text;
  } catch {
    // Not the server's own answer: a proxy's, for instance. Shown as it is.
  }
  clearAnswer();
  summary("", "", "No answer: see the error.");
  at("error").textContent = status ? `${message}\n(HTTP status ${status})` : message;
  at("error").hidden = false;
  at("error").scrollIntoView({ block: "nearest" });
}

function showAnswer(text) {
  const { described, version } = chosenVersion();
  const answer = parse(text);
  const found = firstRow(answer, chosenSignature());
  const probabilities = found.get("probabilities") ?? found.get("scores");
  at("error").hidden = true;
  page.answered = version;
  at("raw").hidden = false;
  at("raw-text").textContent = JSON.stringify(answer, null, 1);
  if (Array.isArray(probabilities) && probabilities.every((share) => !Array.isArray(share))) {
    showClasses(probabilities, found.get("classes") ?? described.classes, described.target);
  } else if (found.has("prediction") || found.has("outputs")) {
    showNumber(found.get("prediction") ?? found.get("outputs"), found.get("quantiles"), described);
  } else {
    summary("", "", "");
    at("answer").replaceChildren();
    at("raw").open = true;
  }
}

/** The outputs for the first row, by name. TensorFlow Serving leaves out the name of a single one. */
function firstRow(answer, signature) {
  if (signature.method === "classify") {
    const pairs = answer.results?.[0] ?? [];
    return new Map([["classes", pairs.map(([name]) => name)], ["scores", pairs.map(([, score]) => score)]]);
  }
  const row = (answer.predictions ?? answer.results)?.[0];
  if (row === undefined) return new Map();
  const isNamed = typeof row === "object" && row !== null && !Array.isArray(row);
  return isNamed ? new Map(Object.entries(row)) : new Map([[signature.outputs[0]?.name, row]]);
}

/** What is read out: only what there is, and only when it changed. */
function summary(what, value, note) {
  const parts = Object.entries({ what, value, note }).filter(([, text]) => text);
  const key = JSON.stringify(parts);
  if (at("summary").dataset.key === key) return;
  at("summary").dataset.key = key;
  at("summary").replaceChildren(...parts.map(([name, text]) => make("span", { className: name }, text)));
}

function showClasses(shares, classes, target) {
  const name = (index) => String(classes.length === shares.length ? classes[index] : index);
  const byShare = [...shares.keys()].sort((a, b) => shares[b] - shares[a]);
  const shown = shares.length > MANY ? byShare.slice(0, SHOWN) : [...shares.keys()];
  summary(target, name(byShare[0]), percent(shares[byShare[0]]));
  const body = barTable(shown.length);
  shown.forEach((index, place) => {
    const [head, track, share] = body.rows[place].cells;
    body.rows[place].className = index === byShare[0] ? "best" : "";
    head.textContent = name(index);
    track.firstChild.firstChild.style.width = `${100 * shares[index]}%`;
    share.textContent = percent(shares[index]);
  });
}

/** The table's rows, those of the answer before where there are as many: bars then move. */
function barTable(count) {
  const old = at("answer").querySelector("table.bars tbody");
  if (old?.rows.length === count) return old;
  const row = () => make("tr", {}, make("th", { scope: "row" }),
    make("td", { className: "track" }, make("span", { className: "bar", "aria-hidden": "true" }, make("i"))),
    make("td", { className: "share" }));
  const body = make("tbody", {}, ...Array.from({ length: count }, row));
  at("answer").replaceChildren(make("table", { className: "bars", "aria-label": "Probabilities" }, body));
  return body;
}

function showNumber(prediction, quantiles, described) {
  const value = Array.isArray(prediction) ? prediction.map(number).join(", ") : number(prediction);
  summary(described.target, value, "");
  at("answer").replaceChildren();
  if (!Array.isArray(quantiles)) return;
  const levels = described.quantiles.length === quantiles.length ? described.quantiles : quantiles.map((_, i) => i);
  const lines = quantiles.map((quantile, index) => make("tr", {},
    make("th", { scope: "row" }, `${number(100 * levels[index])} % lie below`),
    make("td", { className: "share" }, number(quantile))));
  at("answer").append(make("table", { "aria-label": "Quantiles" }, make("tbody", {}, ...lines)));
}

/* ---------------------------------------------------------------- the same call */

let isCallDue = false;

function showCallSoon() {
  if (isCallDue) return;
  isCallDue = true;
  requestAnimationFrame(() => {
    isCallDue = false;
    if (page.panel) showCall();
  });
}

function showCall() {
  const body = page.panel.read().text;
  const call = page.language === "curl" ? curlCall(address(), body) : pythonCall(address(), body);
  say("call", call);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

// Not --data: that takes a text which begins with @ for the name of a file.
const curlCall = (url, body) =>
  `curl ${quoted(url)} \\\n  --header 'Content-Type: application/json' \\\n  --data-raw ${quoted(body)}`;

function pythonCall(url, body) {
  return `import json
import urllib.request

${pythonBody(body)}
request = urllib.request.Request(
    ${JSON.stringify(url)},
    data=body.encode(),
    headers={"Content-Type": "application/json"},
)
with urllib.request.urlopen(request) as response:
    print(json.load(response))
`;
}

/** The body as Python's own values; what is no JSON goes as the text that it is. */
function pythonBody(body) {
  try {
    parse(body);
  } catch {
    return `body = ${JSON.stringify(body)}`;
  }
  const words = new Map([["true", "True"], ["false", "False"], ["null", "None"], ["NaN", 'float("nan")'],
    ["Infinity", 'float("inf")'], ["-Infinity", '-float("inf")']]);
  const token = /"(?:[^"\\]|\\.)*"|-?\b[A-Za-z]+\b/gs;
  const literal = body.replace(token, (found) =>
    // JSON.stringify's escapes are Python's, too; JSON's own "\/" is not.
    found[0] === '"' ? JSON.stringify(JSON.parse(found)) : words.get(found) ?? found);
  return `body = json.dumps(${literal})`;
}

async function copyCall() {
  const text = at("call").textContent;
  let isCopied = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    // Browsers offer the clipboard on https and localhost only; elsewhere the old way.
    getSelection().selectAllChildren(at("call"));
    isCopied = document.execCommand("copy");
  }
  say("copy", isCopied ? "Copied" : "Press Ctrl+C");
  say("announcer", isCopied ? "The call is copied." : "The call is selected; copy it with Ctrl+C.");
  await pause(1500);
  say("copy", "Copy");
}

function showLanguage(language) {
  page.language = language;
  for (const one of ["curl", "python"]) at(`show-${one}`).setAttribute("aria-pressed", String(one === language));
  showCall();
}

/* ---------------------------------------------------------------- start */

at("version").onchange = () => {
  page.choice = at("version").value;
  const wasAnswered = page.answered !== null;
  page.answered = null;
  showWorkspace();
  if (wasAnswered) ask();
};
at("signature").onchange = () => {
  page.signature = at("signature").value;
  showWorkspace();
};
at("show-curl").onclick = () => showLanguage("curl");
at("show-python").onclick = () => showLanguage("python");
at("copy").onclick = copyCall;
window.addEventListener("hashchange", () => {
  const name = decodeHash();
  if (name !== page.name && page.models.some((model) => model.name === name)) choose(name);
});
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) refresh().catch(console.error);
});

function decodeHash() {
  try {
    return decodeURIComponent(location.hash.slice(1));
  } catch {
    return ""; // not written by this page
  }
}

page.name = decodeHash();
watch();
