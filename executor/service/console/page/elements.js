/** Elements: made from values alone, so that nothing a service or a permit says can become markup. */

/**
 * Return a new element.
 * @param {string} tag with classes behind points: `p.quiet`
 * @param {object} properties of the element, among them listeners; `aria-…`, `data-…` and `role` are attributes
 * @param {...(Node | string | number | null | false)} children what is null or false is left out
 */
export function h(tag, properties = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(properties)) {
    if (key.includes("-") || key === "role") element.setAttribute(key, value);
    else element[key] = value;
  }
  element.append(...children.flat().filter((child) => child !== null && child !== false));
  return element;
}

export const byId = (id) => document.getElementById(id);

/** Put `children` in the place of all that `element` has; focus stays on what has the same `data-key`. */
export function fill(element, ...children) {
  const made = h("div", {}, ...children).childNodes;
  const same = made.length === element.childNodes.length;
  if (!same || [...made].some((node, place) => !node.isEqualNode(element.childNodes[place]))) {
    const { key } = element.contains(document.activeElement) ? document.activeElement.dataset : {};
    element.replaceChildren(...made);
    if (key) element.querySelector(`[data-key="${key}"]`)?.focus();
  }
}

/** Show `element` if it is to be seen. */
export function show(element, seen = true) {
  element.hidden = !seen;
}

/** A table under `headings`; `rows` are arrays of cells. */
export const table = (headings, rows) =>
  h(
    "div.wide",
    {},
    h(
      "table",
      {},
      h("thead", {}, h("tr", {}, ...headings.map((name) => h("th", { scope: "col" }, name)))),
      h("tbody", {}, ...rows.map((cells) => h("tr", {}, ...cells))),
    ),
  );

/** The cell that says what its row is about. */
export const heading = (name) => h("th", { scope: "row" }, name);

/** A list of terms, each with what it is: `[[term, child, …], …]`. */
export const terms = (pairs) =>
  h("dl", {}, ...pairs.map(([term, ...what]) => h("div", {}, h("dt", {}, term), h("dd", {}, ...what))));
