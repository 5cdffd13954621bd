/*
 * $.jsonp({ url, success, error, timeout }), as pages call the plugin jquery-jsonp: the last ? of the URL becomes the name
 * of a function, `_<time>=` is added so that nothing comes from the cache, and what is no script is an error. Each request
 * has a frame of its own, so that many can be under way with the same name.
 */
const name = 'C'

jQuery.jsonp = ({ url, success, error, timeout = 0 }) => {
  const frame = jQuery('<iframe hidden>').appendTo(document.documentElement)
  const { contentWindow: scope, contentDocument: page } = frame[0]
  let timer
  const end = (then, ...said) => {
    clearTimeout(timer)
    scope[name] = undefined
    // When the frame has done with it.
    setTimeout(() => {
      frame.remove()
      then?.(...said)
    })
  }
  let answered = false
  scope[name] = data => {
    answered = true
    end(success, data, 'success')
  }
  const fail = why => {
    if (answered) return
    answered = true
    end(error, { url }, why)
  }
  const script = page.createElement('script')
  script.src = `${url.replace(/\?$/, name)}&_${Date.now()}=`
  script.onload = () => fail('error')
  script.onerror = () => fail('error')
  page.head.append(script)
  if (timeout > 0) timer = setTimeout(fail, timeout, 'timeout')
}
