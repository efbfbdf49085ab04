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
