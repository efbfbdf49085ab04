document.documentElement.classList.add("scripted");
document.addEventListener("click", (event) => {
  const link = event.target.closest('a[href^="#cell-"]');
  const cell = link && document.getElementById(link.getAttribute("href").slice(1));
  if (!cell) return;
  event.preventDefault();
  cell.open = true;
  document.querySelectorAll("a.current").forEach((other) => other.classList.remove("current"));
  link.classList.add("current");
  cell.scrollIntoView({ block: "nearest", behavior: matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth" });
});
document.addEventListener("click", (event) => {
  const scales = event.target.closest("button.scale")?.closest(".scales");
  if (!scales) return;
  for (const drawing of scales.children) drawing.hidden = !drawing.hidden;
  scales.querySelector("figure:not([hidden]) button.scale").focus();
});
document.querySelectorAll("table.sortable").forEach((table) => {
  const heads = [...table.tHead.rows[0].cells];
  const value = (row, column) => {
    const cell = row.cells[column], text = cell.dataset.sort ?? cell.textContent.trim();
    return text === "" || text === "–" ? null : Number.isNaN(Number(text)) ? text : Number(text);
  };
  const before = (a, b) => typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
  heads.forEach((head, column) => {
    if (!head.textContent.trim()) return;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "sort";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const sign = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", sign > 0 ? "ascending" : "descending");
      const rows = [...table.tBodies[0].rows].map((row) => [value(row, column), row]);
      rows.sort(([a], [b]) => (a === null) - (b === null) || (a === null ? 0 : sign * before(a, b)));
      table.tBodies[0].append(...rows.map(([, row]) => row));
    });
  });
});
