// A scatter with a map of the metric, and parallel axes: both with axes of the reader's choice, both to drag over.
(() => {
  const block = document.getElementById("explore-data");
  if (!block) return;
  const { columns, rows, metric, goal } = JSON.parse(block.textContent);
  const DEPTH = ["none", "early", "other", "good", "best"];
  rows.sort((a, b) => DEPTH.indexOf(a[1]) - DEPTH.indexOf(b[1]));
  const at = (row, place) => row[place + 2];
  let left = null; // the rows that the filter keeps; null for all

  // ------------------------------------------------------------------ drawing
  const make = (name, attributes, ...inside) => {
    const one = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) if (value !== null) one.setAttribute(key, value);
    one.append(...inside);
    return one;
  };
  const label = (x, y, text, anchor, more = {}) => make("text", { x, y, "text-anchor": anchor, ...more }, text);
  const cut = (text, most) => (text.length > most ? `${text.slice(0, most - 1)}\u2026` : text);
  const titled = (column) => (column.unit ? `${column.title}, ${column.unit}` : column.title);
  const paths = {
    best: (x, y, r) => {
      const corner = (turn) => {
        const [angle, far] = [Math.PI * (turn / 5 - 0.5), turn % 2 ? r * 0.8 : r * 1.9];
        return `${(x + far * Math.cos(angle)).toFixed(1)} ${(y + far * Math.sin(angle)).toFixed(1)}`;
      };
      return `M${[...Array(10).keys()].map(corner).join("L")}Z`;
    },
    good: (x, y, r) => `M${x} ${y - 1.3 * r}l${1.3 * r} ${1.3 * r}l${-1.3 * r} ${1.3 * r}l${-1.3 * r} ${-1.3 * r}Z`,
    early: (x, y, r) => `M${x - r} ${y - r}l${2 * r} ${2 * r}m0 ${-2 * r}l${-2 * r} ${2 * r}`,
  };
  const dot = (x, y, row) => {
    const common = { class: `mark ${row[1]}${gone(row)}`, "data-row": row[0] };
    const path = paths[row[1]];
    return path ? make("path", { d: path(x, y, 4), ...common }) : make("circle", { cx: x, cy: y, r: 4, ...common });
  };
  const gone = (row) => (left && !left.has(row[0]) ? " out" : "");

  // ------------------------------------------------------------------- scales
  const round = (low, high, most) => {
    const rough = (high - low) / most;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= rough * 0.999);
    const first = Math.ceil(low / step - 1e-9);
    return [...Array(Math.max(0, Math.floor(high / step + 1e-9) - first + 1)).keys()].map((n) => (first + n) * step);
  };
  const powers = (low, high, most) => {
    const all = (digits) => {
      const found = [];
      for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
        digits.forEach((digit) => found.push(Number(`${digit}e${power}`)));
      }
      return found.filter((one) => one >= low * 0.999 && one <= high * 1.001);
    };
    const found = [[1, 2, 5], [1, 3], [1]].map(all);
    const fits = found.find((one) => one.length <= most) || found[2];
    return fits.length < 2 ? round(low, high, most) : fits;
  };
  const written = (ticks) => {
    const sizes = ticks.filter(Boolean).map(Math.abs);
    const [small, large] = [Math.min(...sizes), Math.max(...sizes)];
    const digits = (write) => {
      for (let count = 0; count < 12; count += 1) {
        const texts = ticks.map((one) => write(one, count));
        if (new Set(texts).size === texts.length && ticks.every((one, n) => Math.abs(Number(texts[n]) - one) <= 1e-3 * small)) {
          return texts;
        }
      }
      return ticks.map(String);
    };
    const scientific = large >= 1e6 || large < 1e-3 || (small < 1e-3 && large >= 10 * small);
    return digits((one, count) => (scientific && one ? one.toExponential(count).replace("e+", "e") : one.toFixed(count)));
  };
  // From a value to pixels and back; levels stand at whole numbers.
  const scaled = (place, start, end, most, room) => {
    const column = columns[place];
    const known = rows.map((row) => at(row, place)).filter((value) => value !== null);
    let [low, high] = [Math.min(...known), Math.max(...known)];
    if (column.levels) [low, high] = [-0.5, column.levels.length - 0.5];
    const log = column.log && low > 0;
    if (log) {
      const wide = high > low ? (high / low) ** room : 1.5;
      [low, high] = [low / wide, high * wide];
    } else if (!column.levels) {
      const wide = high > low ? (high - low) * room : Math.abs(high) * 0.1 || 0.5;
      [low, high] = [low - wide, high + wide];
    }
    const unit = (value) => (log ? Math.log10(value) : value);
    const to = (value) => start + ((unit(value) - unit(low)) / (unit(high) - unit(low))) * (end - start);
    const back = (pixel) => {
      const here = unit(low) + ((pixel - start) / (end - start)) * (unit(high) - unit(low));
      return log ? 10 ** here : here;
    };
    const tried = [...new Set(known)].sort((a, b) => a - b);
    const apart = tried.map((value, n) => (n ? Math.abs(to(value) - to(tried[n - 1])) : Infinity));
    const few = tried.length <= 8 && Math.min(...apart) >= Math.min(44, Math.abs(end - start) / most / 2);
    const found = few ? tried : log ? powers(low, high, most) : round(low, high, most);
    const ticks = column.levels ? column.levels.map((_, n) => n) : found;
    return { to, back, ticks, names: column.levels || written(ticks) };
  };
  // The terms of the filter for what lies between two pixels of an axis.
  const terms = (place, scale, one, other) => {
    const column = columns[place];
    const [low, high] = [scale.back(one), scale.back(other)].sort((a, b) => a - b);
    if (column.levels) {
      const inside = column.levels.filter((_, n) => n >= low && n <= high).map((level) => level.replace(/\s/g, "_"));
      return { name: column.name, terms: inside.length ? [`${column.name}=${inside.join("|")}`] : [] };
    }
    const [from, to] = [low, high].map((value) => Number(value.toPrecision(4)));
    return { name: column.name, terms: [`${column.name}>=${from}`, `${column.name}<=${to}`] };
  };
  const brush = (...found) => document.dispatchEvent(new CustomEvent("brush", { detail: found }));
  // Tells `done` where a drag with mouse or pen began and ended; a finger scrolls.
  const drags = (picture, width, done) => {
    const here = (event) => {
      const box = picture.getBoundingClientRect();
      return [((event.clientX - box.left) * width) / box.width, ((event.clientY - box.top) * width) / box.width];
    };
    let began = null;
    const area = make("rect", { class: "brush", width: 0, height: 0 });
    picture.append(area);
    picture.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "touch") return;
      began = here(event);
      picture.setPointerCapture(event.pointerId);
    });
    picture.addEventListener("pointermove", (event) => {
      if (!began) return;
      const [x, y] = here(event);
      const box = { x: Math.min(x, began[0]), y: Math.min(y, began[1]), width: Math.abs(x - began[0]), height: Math.abs(y - began[1]) };
      Object.entries(box).forEach(([key, value]) => area.setAttribute(key, value));
    });
    picture.addEventListener("pointerup", (event) => {
      if (!began) return;
      const [from, to] = [began, here(event)];
      began = null;
      area.setAttribute("width", 0);
      if (Math.hypot(to[0] - from[0], to[1] - from[1]) > 6) done(from, to);
    });
  };
  const room = (box) => Math.max(260, Math.min(1180, box.clientWidth));
  const picture = (box, width, height, title) => {
    const one = make("svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img" }, make("title", {}, title));
    box.replaceChildren(one);
    return one;
  };

  // ------------------------------------------------------------------ scatter
  const scatter = document.getElementById("scatter");
  const [across, up] = ["x", "y"].map((name) => document.getElementById(`axis-${name}`));
  const map = document.getElementById("axis-map");
  const BANDS = 7;
  const drawMap = (one, known, x, y, [l, r, t, b]) => {
    const means = known.map((row) => at(row, metric));
    const [low, high] = [Math.min(...means), Math.max(...means)];
    if (!(high > low)) return;
    const places = known.map((row) => [x.to(at(row, Number(across.value))), y.to(at(row, Number(up.value)))]);
    const [wide, tall] = [(r - l) / 36, (b - t) / 20];
    for (let i = 0; i < 36; i += 1) {
      for (let j = 0; j < 20; j += 1) {
        let [sum, weights] = [0, 0];
        places.forEach(([px, py], n) => {
          const weight = 1 / ((px - l - (i + 0.5) * wide) ** 2 + (py - t - (j + 0.5) * tall) ** 2 + 60) ** 1.5;
          sum += weight * means[n];
          weights += weight;
        });
        const share = (sum / weights - low) / (high - low);
        const band = Math.round((goal === "minimize" ? 1 - share : share) * BANDS);
        one.append(make("rect", { x: l + i * wide, y: t + j * tall, width: wide, height: tall, class: `map c${band}` }));
      }
    }
  };
  const drawScatter = () => {
    const [px, py] = [Number(across.value), Number(up.value)];
    const [width, height] = [room(scatter), 400];
    const names = columns[py].levels;
    const l = names ? Math.min(150, 16 + 7 * Math.max(...names.map((name) => Math.min(18, name.length)))) : 66;
    const [r, t, b] = [width - 14, 12, height - 44];
    const title = `${titled(columns[py])} against ${titled(columns[px])}`;
    const one = picture(scatter, width, height, title);
    const [x, y] = [scaled(px, l, r, Math.max(3, width / 110), 0.05), scaled(py, b, t, 6, 0.06)];
    const known = rows.filter((row) => at(row, px) !== null && at(row, py) !== null);
    if (map.checked && px !== metric && py !== metric && px !== py) drawMap(one, known, x, y, [l, r, t, b]);
    const fit = Math.max(4, Math.floor((r - l) / x.ticks.length / 7));
    x.ticks.forEach((tick, n) => {
      one.append(make("line", { x1: x.to(tick), x2: x.to(tick), y1: t, y2: b, class: "grid" }));
      one.append(label(x.to(tick), b + 16, cut(x.names[n], fit), "middle"));
    });
    y.ticks.forEach((tick, n) => {
      one.append(make("line", { x1: l, x2: r, y1: y.to(tick), y2: y.to(tick), class: "grid" }));
      one.append(label(l - 6, y.to(tick) + 4, cut(y.names[n], 18), "end"));
    });
    one.append(label((l + r) / 2, height - 8, titled(columns[px]), "middle", { class: "name" }));
    const middle = (t + b) / 2;
    one.append(label(11, middle, titled(columns[py]), "middle", { class: "name", transform: `rotate(-90 11 ${middle})` }));
    known.forEach((row) => one.append(dot(x.to(at(row, px)), y.to(at(row, py)), row)));
    drags(one, width, (from, to) => brush(terms(px, x, from[0], to[0]), ...(px === py ? [] : [terms(py, y, from[1], to[1])])));
  };

  // ----------------------------------------------------------------- parallel
  const parallel = document.getElementById("parallel");
  const boxes = [...document.querySelectorAll("#axes input")];
  const drawParallel = () => {
    const chosen = boxes.filter((one) => one.checked).map((one) => Number(one.value));
    const [width, height, top, bottom] = [Math.max(room(parallel), 95 * chosen.length + 40), 360, 44, 330];
    const one = picture(parallel, width, height, `parallel axes: ${chosen.map((place) => columns[place].title).join(", ")}`);
    const apart = (width - 110) / Math.max(1, chosen.length - 1);
    const axes = chosen.map((place, n) => {
      const turned = place === metric && goal === "minimize";
      return { place, x: 80 + n * apart, scale: scaled(place, turned ? top : bottom, turned ? bottom : top, 6, 0) };
    });
    const lines = make("g", {});
    rows.forEach((row) => {
      const points = axes.map(({ place, x, scale }) => (at(row, place) === null ? null : `${x.toFixed(1)},${scale.to(at(row, place)).toFixed(1)}`));
      if (points.length > 1 && !points.includes(null)) {
        lines.append(make("polyline", { points: points.join(" "), class: `line ${row[1]}${gone(row)}`, "data-row": row[0] }));
      }
    });
    one.append(lines);
    const ends = (n) => (n === 0 ? "start" : n === axes.length - 1 ? "end" : "middle");
    axes.forEach(({ place, x, scale }, axis) => {
      one.append(make("line", { x1: x, x2: x, y1: top, y2: bottom, class: "axis" }));
      let last = Infinity;
      [...scale.ticks.keys()].sort((a, b) => scale.to(scale.ticks[b]) - scale.to(scale.ticks[a])).forEach((n) => {
        const y = scale.to(scale.ticks[n]);
        if (last - y < 13) return;
        last = y;
        one.append(label(x - 6, y + 4, cut(scale.names[n], 12), "end"));
      });
      one.append(label(x, top - 16, cut(titled(columns[place]), Math.max(8, Math.floor(apart / 7))), ends(axis), { class: "name" }));
    });
    drags(one, width, (from, to) => {
      const near = axes.reduce((a, b) => (Math.abs(b.x - from[0]) < Math.abs(a.x - from[0]) ? b : a));
      brush(terms(near.place, near.scale, from[1], to[1]));
    });
  };

  const draw = () => {
    drawScatter();
    drawParallel();
  };
  [across, up, map].forEach((one) => one.addEventListener("change", drawScatter));
  boxes.forEach((one) => one.addEventListener("change", drawParallel));
  document.addEventListener("rows", (event) => {
    left = event.detail.size < document.getElementById("table").tBodies.length ? event.detail : null;
    document.querySelectorAll("#explore [data-row]").forEach((one) => {
      one.classList.toggle("out", left !== null && !left.has(one.dataset.row));
    });
  });
  let width = 0;
  addEventListener("beforeprint", () => width === 0 && draw()); // paper shows what was out of sight too
  new ResizeObserver(() => {
    if (scatter.clientWidth !== width) draw();
    width = scatter.clientWidth;
  }).observe(scatter);
})();
