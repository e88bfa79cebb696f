// Class bars, curves and the loss field, as SVG and HTML elements; the style sheet sets light and dark colours.

export function make(tag, { text, data, ...properties } = {}, ...children) {
  const element = Object.assign(document.createElement(tag), properties);
  if (text !== undefined) element.textContent = text;
  for (const [name, value] of Object.entries(data || {})) element.dataset[name] = value;
  element.append(...children);
  return element;
}

function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

export const percent = (share) => `${share > 0.995 && share < 1 ? ">99" : Math.round(100 * share)}%`;

export const signed = (value) => {
  const size = Math.abs(value), small = size && size < 0.001;
  return (value < 0 ? "−" : "+") + (small ? size.toExponential(1).replace("e-", "e−") : size.toPrecision(3));
};

const number = (value) => (Math.abs(value) >= 1000 || (value && Math.abs(value) < 0.01)
  ? value.toExponential(1) : String(+value.toPrecision(2))).replace("-", "−").replace("e-", "e−").replace("e+", "e");

export function bars(classes, probabilities, { color, truth }) {
  const likeliest = Math.max(...probabilities);
  return make("ul", { className: "bars" }, ...classes.map((name, place) => {
    const share = probabilities[place];
    const bar = make("span", { className: "fill" });
    bar.style.width = `${100 * share}%`;
    bar.style.background = color;
    const row = make("li", {},
      make("span", { className: "name", text: name, title: `${name}: ${(100 * share).toFixed(1)}%` }),
      make("span", { className: "track" }, bar),
      make("span", { className: "value", text: share >= 0.005 ? percent(share) : "" }));
    row.classList.toggle("top", share === likeliest);
    row.classList.toggle("truth", name === truth);
    return row;
  }));
}

const WIDTH = 200, HEIGHT = 110, LEFT = 38, BOTTOM = 16;

function panel(values, heights, { extra = [], title }) {
  const finite = heights.concat(extra.flatMap(([, y]) => y));
  let low = Math.min(...finite), high = Math.max(...finite);
  if (high - low < 1e-9) [low, high] = [low - 1, high + 1];
  const margin = 0.06 * (high - low);
  [low, high] = [low - margin, high + margin];
  const first = values[0], last = values[values.length - 1];
  const x = (value) => LEFT + (value - first) / (last - first) * (WIDTH - LEFT - 4);
  const y = (value) => 6 + (high - value) / (high - low) * (HEIGHT - BOTTOM - 8);
  const label = (text, at, anchor) => svg("text", { x: at[0], y: at[1], "text-anchor": anchor }, text);
  const drawing = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, class: "chart", role: "img", "aria-label": title });
  drawing.append(
    svg("rect", { x: LEFT, y: 6, width: WIDTH - LEFT - 4, height: HEIGHT - BOTTOM - 8, class: "frame" }),
    label(number(high - margin), [LEFT - 4, 13], "end"), label(number(low + margin), [LEFT - 4, HEIGHT - BOTTOM - 3], "end"),
    label(number(first), [LEFT, HEIGHT - 4], "start"), label(number(last), [WIDTH - 4, HEIGHT - 4], "end"));
  if (low < 0 && high > 0) drawing.append(svg("line", { x1: LEFT, x2: WIDTH - 4, y1: y(0), y2: y(0), class: "zero" }));
  return { drawing, x, y };
}

const path = (values, heights, x, y) => values.map((value, k) => `${k ? "L" : "M"}${x(value).toFixed(1)} ${y(heights[k]).toFixed(1)}`).join("");

// One parameter: its gradient with the fitted line, and the loss below; `now` is the window's current value.
export function curve(name, result, { color, now }) {
  const box = make("figure", { className: "curve", data: { parameter: name } });
  box.append(make("figcaption", { text: { s: "s, size", tx: "tx, across", ty: "ty, down" }[name] }));
  if (result.refusal) {
    box.append(make("p", { className: "hint", text: result.refusal }));
    return box;
  }
  const { values, gradient, loss, slope, intercept } = result;
  const ends = [values[0], values[values.length - 1]], line = ends.map((value) => slope * value + intercept);
  const above = panel(values, gradient, { extra: [[ends, line]], title: `gradient along ${name}` });
  const below = panel(values, loss, { title: `loss along ${name}` });
  for (const { drawing, x } of now >= ends[0] && now <= ends[1] ? [above, below] : []) {
    drawing.append(svg("line", { x1: x(now), x2: x(now), y1: 6, y2: HEIGHT - BOTTOM - 2, class: "now" }));
  }
  for (const [k, value] of values.entries()) {
    above.drawing.append(svg("circle", { cx: above.x(value), cy: above.y(gradient[k]), r: 1.7, fill: color }));
  }
  above.drawing.append(svg("path", { d: path(ends, line, above.x, above.y), class: "fit" }));
  below.drawing.append(svg("path", { d: path(values, loss, below.x, below.y), fill: "none", stroke: color, "stroke-width": 2 }));
  box.append(make("p", { className: "axis", text: `dL/d${name}` }), above.drawing,
    make("p", { className: "axis", text: "loss (nats)" }), below.drawing,
    make("p", { className: result.as_wanted ? "wanted" : "unwanted",
      text: `slope ${signed(slope)}, ${result.as_wanted ? "right" : "wrong"} sign; R² ${result.r_squared.toFixed(2)}` }));
  return box;
}

// The loss for all positions of the window's centre, bright where it is high; lines point downhill.
export function fieldMap(result, { picture, color, window, choose }) {
  const reach = 1 - result.scale;
  const side = 200, at = (value) => (value + 1) / 2 * side;
  const count = Math.sqrt(result.places.length), cell = 2 * reach / (count - 1) / 2 * side;
  const drawing = svg("svg", { viewBox: `0 0 ${side} ${side}`, class: "chart field", role: "img",
    "aria-label": "loss by window position" });
  // Cells are centred on their positions, so the map is one cell wider than the range of positions.
  const start = at(-reach) - cell / 2, width = count * cell;
  drawing.append(svg("image", { href: picture, width: side, height: side, class: "under" }),
    svg("image", { href: result.picture, x: start, y: start, width, height: width, class: "map" }));
  for (const [k, [x, y]] of result.places.entries()) {
    const [dx, dy] = result.downhill[k].map((part) => part * cell * 0.36);
    drawing.append(svg("path", { class: "downhill", d: `M${at(x) - dx} ${at(y) - dy}L${at(x) + dx} ${at(y) + dy}` }),
      svg("circle", { cx: at(x) + dx, cy: at(y) + dy, r: 1.3, class: "tip" }));
  }
  drawing.append(svg("rect", { x: at(window[1] - window[0]), y: at(window[2] - window[0]), width: window[0] * side,
    height: window[0] * side, class: "window", stroke: color }));
  drawing.addEventListener("click", (event) => {
    const area = drawing.getBoundingClientRect();
    choose([(event.clientX - area.left) / area.width * 2 - 1, (event.clientY - area.top) / area.height * 2 - 1]);
  });
  const [low, high] = result.loss_range;
  return make("figure", { className: "curve", data: { parameter: "field" } },
    make("figcaption", { text: "loss field" }), drawing,
    make("p", { className: "hint", text: `Loss from ${number(low)} (dark) to ${number(high)} (bright) at s = ${result.scale.toFixed(2)}; lines point downhill, to their dots. Click to move the window.` }));
}
