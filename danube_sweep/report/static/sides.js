// Two trials side by side: the same validation rows, and what each of the two answered.
(() => {
  const block = document.getElementById("sides-data");
  if (!block) return;
  const { ids, labels, texts, rows, trials } = JSON.parse(block.textContent);
  const table = document.getElementById("sides");
  const picks = ["a", "b"].map((name) => document.getElementById(`side-${name}`));
  picks[1].value = "1";

  const cell = (kind, text, name) => {
    const one = document.createElement(kind);
    const inner = document.createElement("bdi");
    inner.textContent = text;
    one.append(inner);
    if (name) one.className = name;
    if (kind === "th") one.scope = "col";
    return one;
  };
  const draw = () => {
    const [a, b] = picks.map((one) => trials[Number(one.value)]);
    const order = rows.map((_, n) => n).sort((m, n) => Math.abs(b[0][n] - a[0][n]) - Math.abs(b[0][m] - a[0][m]));
    const head = document.createElement("tr");
    const answered = a[1].some(Boolean);
    const titles = ["id", ...(texts ? ["text"] : []), "label", "left", "right"];
    head.append(...titles.map((title) => cell("th", title)));
    const lines = order.map((n) => {
      const line = document.createElement("tr");
      const said = (one) => `${answered ? `${one[1][n]}; ` : ""}loss ${one[0][n].toFixed(3)}`;
      line.append(cell("td", ids[rows[n]]), ...(texts ? [cell("td", texts[rows[n]], "text")] : []));
      line.append(cell("td", labels[rows[n]], "label"), cell("td", said(a), `answer${a[0][n] < b[0][n] ? " better" : ""}`));
      line.append(cell("td", said(b), `answer${b[0][n] < a[0][n] ? " better" : ""}`));
      return line;
    });
    table.replaceChildren(head, ...lines);
  };
  picks.forEach((one) => one.addEventListener("change", draw));
  draw();
})();
