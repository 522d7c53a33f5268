// Which layer names a pattern means: the same meaning as quant_core/patterns.py, so that the live
// preview tells the truth. A test holds both against one table.

/** Patterns from a text of one a line; commas also separate. */
export function parsePatterns(text) {
  const lines = text.split(/[\n\r,]/).map((line) => line.trim())
  return [...new Set(lines.filter(Boolean))]
}

/** Whole dotted components, or with a wildcard a shell glob over the whole name. */
export function matches(pattern, name) {
  if (/[*?[]/.test(pattern)) return globMatches(pattern, name)
  return `.${name}.`.includes(`.${pattern}.`)
}

function globMatches(pattern, name) {
  const tokens = tokenize(pattern)
  // Only the last star may have to give characters back, as in any shell.
  let [token, at, star, retry] = [0, 0, -1, 0]
  while (at < name.length) {
    if (token < tokens.length && tokens[token] === "*") {
      star = token++
      retry = at
    } else if (token < tokens.length && tokens[token](name[at])) {
      token++
      at++
    } else if (star >= 0) {
      token = star + 1
      at = ++retry
    } else {
      return false
    }
  }
  return tokens.slice(token).every((rest) => rest === "*")
}

/** "*", or a function of one character, for each unit of the glob. */
function tokenize(pattern) {
  const tokens = []
  for (let at = 0; at < pattern.length; at++) {
    const char = pattern[at]
    const end = char === "[" ? setEnd(pattern, at) : -1
    if (char === "*") tokens.push("*")
    else if (char === "?") tokens.push(() => true)
    else if (end > 0) {
      tokens.push(characterSet(pattern.slice(at + 1, end)))
      at = end
    } else tokens.push((other) => other === char)
  }
  return tokens
}

/** Where the set that opens at `start` closes, or -1: then "[" is an ordinary character. */
function setEnd(pattern, start) {
  let from = start + 1
  if (pattern[from] === "!") from++
  if (pattern[from] === "]") from++
  return pattern.indexOf("]", from)
}

function characterSet(text) {
  const negated = text.startsWith("!")
  const body = negated ? text.slice(1) : text
  const ranges = []
  for (let at = 0; at < body.length; at++) {
    const isRange = body[at + 1] === "-" && at + 2 < body.length
    ranges.push([body[at], body[isRange ? at + 2 : at]])
    if (isRange) at += 2
  }
  return (char) => negated !== ranges.some(([low, high]) => low <= char && char <= high)
}
