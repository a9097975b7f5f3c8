//! Characters that a stranger's words must not have on a terminal.

/// Characters that show nothing and change what is seen: marks that turn the writing direction, line ends that are not
/// newlines, joiners and spaces of no width, invisible letters. With them a text can look like another one. Control characters
/// are not among them.
pub fn is_hidden(c: char) -> bool {
    matches!(
        c,
        '\u{00ad}'
            | '\u{034f}'
            | '\u{061c}'
            | '\u{180e}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}'
            | '\u{feff}'
            | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}'
    )
}
