// The filter of the ranking: words, and terms like lr>=0.001 or targets=qv|mlp. Tells the plots which rows are left.
(() => {
  const words = document.getElementById("words");
  if (!words) return;
  const state = document.getElementById("state");
  const count = document.getElementById("count");
  const bodies = [...document.getElementById("table").tBodies];
  const block = document.getElementById("explore-data");
  const data = block ? JSON.parse(block.textContent) : { columns: [], rows: [] };
  const values = new Map(data.rows.map(([key, , ...numbers]) => [key, numbers]));
  const TERM = /^(.+?)(<=|>=|<|>|=)(.+)$/;
  const TESTS = {
    "<=": (a, b) => a <= b,
    ">=": (a, b) => a >= b,
    "<": (a, b) => a < b,
    ">": (a, b) => a > b,
  };

  // A term as a test of a row's key, or null for a word.
  const test = (term) => {
    const [, name, sign, wanted] = term.match(TERM) || [];
    const place = data.columns.findIndex((one) => [one.name, one.key].some((own) => own && own.toLowerCase() === name));
    const column = data.columns[place];
    if (!column || (sign === "=") !== Boolean(column.levels)) return null;
    const of = (key) => (values.has(key) ? values.get(key)[place] : null);
    if (column.levels) {
      const any = wanted.split("|");
      const fits = column.levels.map((level) => any.includes(level.toLowerCase().replace(/\s/g, "_")));
      return fits.includes(true) ? (key) => fits[of(key)] === true : null;
    }
    const limit = Number(wanted);
    return Number.isNaN(limit) ? null : (key) => of(key) !== null && TESTS[sign](of(key), limit);
  };

  const filter = () => {
    const terms = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    const tests = terms.map((term) => test(term) || ((key, body) => body.dataset.words.includes(term)));
    const kind = state ? state.value : "";
    const left = new Set();
    for (const body of bodies) {
      const fits = tests.every((one) => one(body.id, body));
      const shown = fits && (kind === "" || body.dataset.states.split(" ").includes(kind));
      if (body.hidden === shown) body.hidden = !shown;
      if (shown) left.add(body.id);
    }
    count.textContent = left.size === bodies.length ? `${left.size} rows` : `${left.size} of ${bodies.length} rows`;
    document.dispatchEvent(new CustomEvent("rows", { detail: left }));
  };
  words.addEventListener("input", filter);
  words.form.addEventListener("submit", (event) => event.preventDefault());
  if (state) state.addEventListener("change", filter);

  // A range of a plot in place of the terms of the same columns.
  document.addEventListener("brush", (event) => {
    const names = event.detail.map((one) => one.name.toLowerCase());
    const kept = words.value.split(/\s+/).filter((term) => !names.includes((term.toLowerCase().match(TERM) || [])[1]));
    words.value = [...kept, ...event.detail.flatMap((one) => one.terms)].filter(Boolean).join(" ");
    filter();
  });
})();
