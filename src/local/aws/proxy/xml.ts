/** As much XML as AWS' query protocols speak: elements, attributes, text. No comments, no CDATA, no entities of one's own. */

export interface Element {
  readonly name: string;
  /** As written, with the blank in front of it. */
  readonly attributes: string;
  children: (Element | string)[];
}

export function parseXml(text: string): Element {
  const root: Element = { name: '', attributes: '', children: [] };
  const open: Element[] = [root];
  for (const [piece, closing, name, attributes, empty] of text.matchAll(
    /<\?[^>]*\?>|<(\/?)([\w:.-]+)([^>]*?)(\/?)>|[^<]+/g,
  )) {
    const parent = open.at(-1) ?? root;
    if (name === undefined) {
      if (!piece.startsWith('<?') && (piece.trim() !== '' || parent.children.length === 0)) parent.children.push(piece);
    } else if (closing === '/') {
      if (open.pop()?.name !== name) throw new Error(`The XML closes <${name}>, which is not open.`);
    } else {
      const element = { name, attributes: attributes ?? '', children: [] };
      parent.children.push(element);
      if (empty !== '/') open.push(element);
    }
  }
  const first = root.children.find((child) => typeof child !== 'string');
  if (first === undefined || open.length !== 1) throw new Error('The XML is not complete.');
  return first;
}

export function writeXml({ name, attributes, children }: Element): string {
  const content = children.map((child) => (typeof child === 'string' ? child : writeXml(child))).join('');
  return `<${name}${attributes}>${content}</${name}>`;
}

/** All elements of a name, at any depth. */
export function elements(root: Element, name: string): Element[] {
  const found: Element[] = [];
  for (const child of root.children) {
    if (typeof child === 'string') continue;
    if (child.name === name) found.push(child);
    found.push(...elements(child, name));
  }
  return found;
}

/** The text of the first child of a name. */
export function childText(element: Element, name: string): string | undefined {
  const child = childOf(element, name);
  return child?.children.filter((piece) => typeof piece === 'string').join('');
}

export function setChildText(element: Element, name: string, text: string): void {
  const child = childOf(element, name);
  if (child === undefined) element.children.push({ name, attributes: '', children: [text] });
  else child.children = [text];
}

/** Takes out the members of lists (`item` or `member`) for which `drop` holds. */
export function dropMembers(root: Element, drop: (member: Element) => boolean): void {
  root.children = root.children.filter(
    (child) => typeof child === 'string' || !/^(item|member)$/.test(child.name) || !drop(child),
  );
  for (const child of root.children) if (typeof child !== 'string') dropMembers(child, drop);
}

function childOf({ children }: Element, name: string): Element | undefined {
  return children.find((child): child is Element => typeof child !== 'string' && child.name === name);
}
