// Draws the picture and its windows, and lets visitors drag them.
//
// Normalised coordinates as in glimpsenet/geometry.py: x right, y down, -1 and +1 the outer edges of the picture;
// the window of (s, tx, ty) is [tx - s, tx + s] x [ty - s, ty + s].

export const clampWindow = ([s, x, y], smallest) => {
  const scale = Math.min(1, Math.max(smallest, s));
  const clamp = (value) => Math.min(1 - scale, Math.max(scale - 1, value));
  return [scale, clamp(x), clamp(y)];
};

const pixels = (value, side) => (value + 1) / 2 * side;

// view: {image, windows, shown, selected, colors, gradients, longest, yours}; glimpse t is windows[t - 1].
export function paint(canvas, view, extra = {}) {
  const side = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  const sharp = Math.round(side * ratio);
  if (canvas.width !== sharp || canvas.height !== sharp) canvas.width = canvas.height = sharp;
  const pen = canvas.getContext("2d");
  pen.setTransform(sharp / side, 0, 0, sharp / side, 0, 0);
  pen.clearRect(0, 0, side, side);
  if (!view.image) return;
  pen.imageSmoothingEnabled = view.image.naturalWidth > side / 2.5; // show few pixels as squares
  pen.imageSmoothingQuality = "high";
  pen.drawImage(view.image, 0, 0, side, side);
  const order = view.windows.map((_, place) => place + 1).filter((glimpse) => glimpse <= view.shown && (glimpse > 1 || glimpse === view.selected));
  order.sort((a, b) => (a === view.selected) - (b === view.selected));
  const at = (glimpse) => (extra.moving && extra.moving.glimpse === glimpse ? extra.moving.window : view.windows[glimpse - 1]);
  for (const glimpse of order) drawWindow(pen, side, at(glimpse), glimpse, view);
  const gradient = view.gradients && view.selected >= 2 ? view.gradients[view.selected - 2] : null;
  if (gradient && view.selected <= view.shown) {
    const largest = Math.max(...view.gradients.flat().map(Math.abs), 1e-12);
    // One scale for all windows; corner arrows stay short of the smallest window's centre.
    const reach = Math.min(view.longest, ...view.windows.slice(1).map(([s]) => 0.38 * s));
    drawArrows(pen, side, view.windows[view.selected - 1], gradient.map((v) => -v * reach * side / largest),
      view.colors(view.selected));
  }
  for (const glimpse of order) drawNumber(pen, side, at(glimpse), glimpse, view);
}

function drawWindow(pen, side, [s, x, y], glimpse, view) {
  const chosen = glimpse === view.selected && view.handles;
  const thick = view.handles ? (chosen ? 3 : 2) : 2;
  const left = pixels(x - s, side), top = pixels(y - s, side), width = s * side;
  const inset = thick / 2;
  pen.lineJoin = "miter";
  pen.setLineDash(view.yours.has(glimpse) ? [7, 4] : []);
  pen.strokeStyle = "rgba(0, 0, 0, .55)";
  pen.lineWidth = thick + 2;
  pen.strokeRect(left + inset, top + inset, width - 2 * inset, width - 2 * inset);
  pen.strokeStyle = view.colors(glimpse);
  pen.lineWidth = thick;
  pen.strokeRect(left + inset, top + inset, width - 2 * inset, width - 2 * inset);
  pen.setLineDash([]);
  if (!chosen || view.gradients) return; // arrows start at the handles
  for (const [cx, cy] of corners([s, x, y], side)) {
    pen.fillStyle = "#fff";
    pen.strokeStyle = "#000";
    pen.lineWidth = 1;
    const keep = (value) => Math.min(side - 5, Math.max(5, value));
    if (Math.hypot(cx - left, cy - top) < 1) continue; // the number goes there
    pen.beginPath();
    pen.arc(keep(cx), keep(cy), 4.5, 0, 7);
    pen.fill();
    pen.stroke();
  }
}

function drawNumber(pen, side, [s, x, y], glimpse, view) {
  const left = pixels(x - s, side), top = pixels(y - s, side);
  const tag = view.handles ? 18 : 13;
  // Numbers of windows with the same corner stand side by side.
  const beside = view.windows.slice(1, glimpse - 1).filter(([os, ox, oy], place) => place + 2 <= view.shown
    && Math.hypot(ox - os - (x - s), oy - os - (y - s)) * side / 2 < tag).length;
  pen.fillStyle = view.colors(glimpse);
  pen.fillRect(left + beside * tag, top, tag, tag);
  pen.fillStyle = "#000";
  pen.font = `600 ${tag * 0.72}px system-ui, sans-serif`;
  pen.textAlign = "center";
  pen.textBaseline = "middle";
  pen.fillText(glimpse, left + (beside + 0.5) * tag, top + tag * 0.54);
}

const corners = ([s, x, y], side) => [[-1, -1], [1, -1], [-1, 1], [1, 1]]
  .map(([h, v]) => [pixels(x + h * s, side), pixels(y + v * s, side)]);

function drawArrows(pen, side, window, [ds, dx, dy], color) {
  const x = pixels(window[1], side), y = pixels(window[2], side);
  const arrows = [[x, y, dx, 0], [x, y, 0, dy]];
  for (const [cx, cy] of corners(window, side)) arrows.push([cx, cy, ds * Math.sign(cx - x), ds * Math.sign(cy - y)]);
  for (const [x0, y0, across, down] of arrows) arrow(pen, x0, y0, x0 + across, y0 + down, color);
}

export function arrow(pen, x0, y0, x1, y1, color, thick = 3) {
  const length = Math.hypot(x1 - x0, y1 - y0);
  if (length < 1.5) return;
  const angle = Math.atan2(y1 - y0, x1 - x0), head = Math.min(length, 3.2 * thick);
  const shape = () => {
    pen.beginPath();
    pen.moveTo(x0, y0);
    pen.lineTo(x1 - 0.6 * head * Math.cos(angle), y1 - 0.6 * head * Math.sin(angle));
    pen.stroke();
    pen.beginPath();
    pen.moveTo(x1, y1);
    for (const turn of [2.6, -2.6]) pen.lineTo(x1 + head * Math.cos(angle + turn), y1 + head * Math.sin(angle + turn));
    pen.closePath();
    pen.stroke();
    pen.fill();
  };
  pen.lineCap = "round";
  for (const [paint, width] of [["#000", thick + 2], [color, thick]]) {
    pen.strokeStyle = pen.fillStyle = paint;
    pen.lineWidth = width;
    shape();
  }
}

// Pointer and keys on the canvas. `view()` returns what is drawn; `select(glimpse)` and `move(glimpse, window)` are callbacks.
export function makeDraggable(canvas, { view, select, move, smallest }) {
  let grip = null;

  const place = (event) => {
    const area = canvas.getBoundingClientRect();
    return [(event.clientX - area.left) / area.width * 2 - 1, (event.clientY - area.top) / area.height * 2 - 1];
  };
  const holds = ([s, x, y], [px, py]) => Math.max(Math.abs(px - x), Math.abs(py - y)) <= s;

  function find(point, reach) {
    const { windows, shown, selected } = view();
    const chosen = selected <= shown ? windows[selected - 1] : null;
    const [px, py] = point;
    if (chosen) {
      const [s, x, y] = chosen;
      const corner = Math.max(Math.abs(Math.abs(px - x) - s), Math.abs(Math.abs(py - y) - s)) < reach;
      if (corner) return { glimpse: selected, resize: true };
      if (selected > 1 && holds(chosen, point)) return { glimpse: selected };
    }
    const under = windows.map((window, index) => [index + 1, window])
      .filter(([glimpse, window]) => glimpse > 1 && glimpse <= shown && holds(window, point))
      .sort(([, a], [, b]) => a[0] - b[0]);
    if (under.length) return { glimpse: under[0][0] };
    return chosen && selected > 1 ? { glimpse: selected, jump: true } : null;
  }

  const reached = (event, touch) => {
    const found = view().image && find(place(event), (touch ? 22 : 11) / canvas.clientWidth * 2);
    return touch && found && found.jump ? null : found; // outside the windows, a finger scrolls the page
  };

  canvas.addEventListener("touchstart", (event) => {
    if (event.touches.length === 1 && reached(event.touches[0], true)) event.preventDefault();
  }, { passive: false });

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button) return;
    const point = place(event), found = reached(event, event.pointerType === "touch");
    if (!found) return;
    canvas.setPointerCapture(event.pointerId);
    select(found.glimpse);
    const [s, x, y] = view().windows[found.glimpse - 1];
    grip = { ...found, id: event.pointerId, offset: found.jump ? [0, 0] : [point[0] - x, point[1] - y] };
    if (found.jump) move(grip.glimpse, clampWindow([s, ...point], smallest()));
    event.preventDefault();
  });

  canvas.addEventListener("pointermove", (event) => {
    if (!grip || grip.id !== event.pointerId) {
      const found = reached(event, false);
      canvas.style.cursor = !found ? "default" : found.resize ? "nwse-resize" : found.jump ? "crosshair" : "grab";
      return;
    }
    const [px, py] = place(event), [s, x, y] = view().windows[grip.glimpse - 1];
    if (grip.resize) {
      const wanted = Math.max(Math.abs(px - x), Math.abs(py - y));
      move(grip.glimpse, clampWindow([Math.min(wanted, 1 - Math.max(Math.abs(x), Math.abs(y))), x, y], smallest()));
    } else {
      move(grip.glimpse, clampWindow([s, px - grip.offset[0], py - grip.offset[1]], smallest()));
    }
  });

  for (const end of ["pointerup", "pointercancel"]) canvas.addEventListener(end, () => { grip = null; });

  canvas.addEventListener("keydown", (event) => {
    const { windows, selected, shown, image } = view();
    if (!image || event.ctrlKey || event.metaKey || event.altKey) return;
    if (/^[1-9]$/.test(event.key) && +event.key <= shown) {
      select(+event.key);
    } else if (selected <= shown) {
      const [s, x, y] = windows[selected - 1], far = event.shiftKey ? 0.1 : 0.02;
      const moved = {
        ArrowLeft: [s, x - far, y], ArrowRight: [s, x + far, y], ArrowUp: [s, x, y - far], ArrowDown: [s, x, y + far],
        "+": [s + 0.02, x, y], "=": [s + 0.02, x, y], "-": [s - 0.02, x, y],
      }[event.key];
      if (!moved) return;
      move(selected, clampWindow(moved, smallest()));
    } else {
      return;
    }
    event.preventDefault();
  });
}
