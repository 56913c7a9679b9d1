"use strict";
// Sorting, opening rows and copying the command. Without the scripts the page shows everything but the opened rows and
// the plots with axes of the reader's choice.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const table = document.getElementById("table");
  const bodies = table ? [...table.tBodies] : []; // not those of the tables in opened rows

  // --------------------------------------- rows further down, once in sight
  const further = document.getElementById("further");
  const step = further ? Number(further.dataset.step) : Infinity;
  let most = step;
  const draw = () => {
    let count = 0;
    for (const body of table.tBodies) {
      if (body.hidden) continue;
      body.classList.toggle("later", count >= most);
      count += 1;
    }
    table.classList.add("ready");
    if (!further) return;
    further.hidden = count <= most;
    further.textContent = `Show the other ${(count - most).toLocaleString("en")} rows`;
  };
  const drawTo = (wanted) => {
    most = wanted;
    draw();
  };
  if (table) draw();
  if (further) {
    const seen = new IntersectionObserver((met) => met.some((one) => one.isIntersecting) && drawTo(most + step));
    seen.observe(further);
    further.addEventListener("click", () => drawTo(Infinity));
    document.addEventListener("rows", () => drawTo(step));
  }

  // ------------------------------------------------------------------ sorting
  const compare = (a, b) => {
    if (a === b) return 0;
    if (a === "") return 1;
    if (b === "") return -1;
    const [x, y] = [Number(a), Number(b)];
    return Number.isNaN(x) || Number.isNaN(y) ? a.localeCompare(b, undefined, { numeric: true }) : x - y;
  };
  const value = (body, column) => body.rows[0].cells[column + 1].dataset.v;
  const sort = (button) => {
    const head = button.closest("th");
    const down = head.getAttribute("aria-sort") === "ascending";
    const column = Number(button.dataset.sort);
    all("th[aria-sort]", table).forEach((one) => one.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", down ? "descending" : "ascending");
    const order = [...bodies].sort((a, b) => {
      const [x, y] = [value(a, column), value(b, column)];
      return x === "" || y === "" || !down ? compare(x, y) : compare(y, x);
    });
    table.append(...order);
    drawTo(step);
  };
  if (table) all("button[data-sort]", table).forEach((one) => one.addEventListener("click", () => sort(one)));

  // ------------------------------------------------------------- opening rows
  const open = (body, wanted) => {
    const button = body.querySelector(".opener");
    const now = wanted === undefined ? button.getAttribute("aria-expanded") !== "true" : wanted;
    button.setAttribute("aria-expanded", String(now));
    const cell = body.rows[1].cells[0];
    if (now && cell.firstElementChild.matches("script")) cell.innerHTML = cell.textContent;
    body.rows[1].hidden = !now;
  };
  const reveal = (key) => {
    const body = document.getElementById(key);
    if (!body || !bodies.includes(body)) return;
    body.hidden = false;
    if (body.matches(".later")) drawTo([...table.tBodies].filter((one) => !one.hidden).indexOf(body) + 1);
    open(body, true);
    body.scrollIntoView({ block: "start" });
    body.querySelector(".opener").focus({ preventScroll: true });
  };
  for (const body of bodies) {
    body.rows[0].addEventListener("click", (event) => {
      if (!event.target.closest("a") && !String(getSelection())) open(body);
    });
    body.querySelector(".opener").addEventListener("keydown", (event) => {
      const way = { ArrowDown: 1, ArrowUp: -1 }[event.key];
      if (!way) return;
      const left = [...table.tBodies].filter((one) => !one.hidden);
      const next = left[left.indexOf(body) + way];
      if (next && next.matches(".later")) drawTo(most + step);
      if (next) next.querySelector(".opener").focus();
      event.preventDefault();
    });
  }
  document.addEventListener("click", (event) => {
    const link = event.target.closest("[data-open]");
    const mark = event.target.closest("svg [data-row]");
    if (link) event.preventDefault();
    if (link || mark) reveal(link ? link.dataset.open : mark.dataset.row);
  });

  // -------------------------------------------- one row lit up in every place
  const marks = (key) => all(`[data-row="${key}"]`);
  const tell = (mark) => {
    const row = document.getElementById(mark.dataset.row);
    if (!row || !mark.closest("svg") || mark.querySelector("title")) return;
    const title = document.createElementNS("http://www.w3.org/2000/svg", "title");
    title.textContent = row.dataset.about;
    mark.append(title);
  };
  const light = (event, on) => {
    const mark = event.target.closest && event.target.closest("[data-row]");
    if (mark && on) tell(mark);
    if (mark) marks(mark.dataset.row).forEach((one) => one.classList.toggle("lit", on));
  };
  document.addEventListener("mouseover", (event) => light(event, true));
  document.addEventListener("mouseout", (event) => light(event, false));

  // ------------------------------------------------------------------ copying
  const copy = async (button) => {
    const source = document.getElementById(button.dataset.copy);
    const range = document.createRange();
    range.selectNodeContents(source);
    getSelection().removeAllRanges();
    getSelection().addRange(range);
    let done = false;
    try {
      await navigator.clipboard.writeText(source.textContent);
      done = true;
    } catch {
      done = document.execCommand("copy");
    }
    button.parentElement.querySelector("[role=status]").textContent = done ? "Copied" : "Selected: press Ctrl+C";
  };
  all("button[data-copy]").forEach((one) => one.addEventListener("click", () => copy(one)));
})();
